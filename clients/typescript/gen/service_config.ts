export default {
  "loadBalancingConfig": [{ "round_robin": {} }],
  "healthCheckConfig": { "serviceName": "todo.v1.TodoService" },
  "methodConfig": [
    {
      "name": [
        { "service": "todo.v1.TodoService", "method": "GetTodo" },
        { "service": "todo.v1.TodoService", "method": "BatchGetTodos" },
        { "service": "todo.v1.TodoService", "method": "ListTodos" }
      ],
      "timeout": "10s",
      "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    },
    {
      "name": [
        { "service": "todo.v1.TodoService", "method": "CreateTodo" },
        { "service": "todo.v1.TodoService", "method": "UpdateTodo" },
        { "service": "todo.v1.TodoService", "method": "DeleteTodo" }
      ],
      "timeout": "10s"
    },
    { "name": [{ "service": "todo.v1.TodoService", "method": "WatchTodos" }] }
  ],
  "retryThrottling": { "maxTokens": 100, "tokenRatio": 0.1 }
}
