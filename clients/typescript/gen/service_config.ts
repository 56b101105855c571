export default {
  "loadBalancingConfig": [{ "round_robin": {} }],
  "healthCheckConfig": { "serviceName": "todo.v1.TodoService" },
  "methodConfig": [
    {
      "name": [
        { "service": "todo.v1.TodoService", "method": "GetTodo" },
        { "service": "todo.v1.TodoService", "method": "BatchGetTodos" },
        { "service": "todo.v1.TodoService", "method": "ListTodos" },
        { "service": "todo.v1.TodoService", "method": "GetTodoList" },
        { "service": "todo.v1.TodoService", "method": "ListTodoLists" }
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
        { "service": "todo.v1.TodoService", "method": "DeleteTodo" },
        { "service": "todo.v1.TodoService", "method": "CreateTodoList" },
        { "service": "todo.v1.TodoService", "method": "UpdateTodoList" },
        { "service": "todo.v1.TodoService", "method": "DeleteTodoList" }
      ],
      "timeout": "10s"
    },
    { "name": [{ "service": "todo.v1.TodoService", "method": "WatchTodos" }] }
  ],
  "retryThrottling": { "maxTokens": 100, "tokenRatio": 0.1 }
}
