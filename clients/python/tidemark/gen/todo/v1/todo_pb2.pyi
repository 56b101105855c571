import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_READER: _ClassVar[Role]
    ROLE_WRITER: _ClassVar[Role]
    ROLE_OWNER: _ClassVar[Role]

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_NEAR: _ClassVar[Source]
    SOURCE_SHARED: _ClassVar[Source]
    SOURCE_ORIGIN: _ClassVar[Source]

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_FIELD_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_FILTER_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_PAGE_TOKEN_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_TOKEN_INVALID: _ClassVar[ErrorReason]
    ERROR_REASON_TOKEN_FOREIGN: _ClassVar[ErrorReason]
    ERROR_REASON_TODO_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_TODO_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_ETAG_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_TODO_UNREADABLE: _ClassVar[ErrorReason]
    ERROR_REASON_ORIGIN_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_CACHE_ONLY_MISS: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_OVERLOADED: _ClassVar[ErrorReason]
    ERROR_REASON_MESSAGE_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_WRITE_OUTCOME_UNKNOWN: _ClassVar[ErrorReason]
    ERROR_REASON_ORIGIN_REFUSED: _ClassVar[ErrorReason]
    ERROR_REASON_ORIGIN_FORBIDDEN: _ClassVar[ErrorReason]
    ERROR_REASON_ORIGIN_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_CALLER_UNKNOWN: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_LIST_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_LIST_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_LIST_NOT_EMPTY: _ClassVar[ErrorReason]
    ERROR_REASON_LIST_UNREADABLE: _ClassVar[ErrorReason]
ROLE_UNSPECIFIED: Role
ROLE_READER: Role
ROLE_WRITER: Role
ROLE_OWNER: Role
SOURCE_UNSPECIFIED: Source
SOURCE_NEAR: Source
SOURCE_SHARED: Source
SOURCE_ORIGIN: Source
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_FIELD_INVALID: ErrorReason
ERROR_REASON_FILTER_INVALID: ErrorReason
ERROR_REASON_PAGE_TOKEN_INVALID: ErrorReason
ERROR_REASON_TOKEN_INVALID: ErrorReason
ERROR_REASON_TOKEN_FOREIGN: ErrorReason
ERROR_REASON_TODO_NOT_FOUND: ErrorReason
ERROR_REASON_TODO_ALREADY_EXISTS: ErrorReason
ERROR_REASON_ETAG_MISMATCH: ErrorReason
ERROR_REASON_TODO_UNREADABLE: ErrorReason
ERROR_REASON_ORIGIN_UNAVAILABLE: ErrorReason
ERROR_REASON_CACHE_ONLY_MISS: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_OVERLOADED: ErrorReason
ERROR_REASON_MESSAGE_TOO_LARGE: ErrorReason
ERROR_REASON_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_WRITE_OUTCOME_UNKNOWN: ErrorReason
ERROR_REASON_ORIGIN_REFUSED: ErrorReason
ERROR_REASON_ORIGIN_FORBIDDEN: ErrorReason
ERROR_REASON_ORIGIN_FULL: ErrorReason
ERROR_REASON_CALLER_UNKNOWN: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
ERROR_REASON_LIST_NOT_FOUND: ErrorReason
ERROR_REASON_LIST_ALREADY_EXISTS: ErrorReason
ERROR_REASON_LIST_NOT_EMPTY: ErrorReason
ERROR_REASON_LIST_UNREADABLE: ErrorReason

class Todo(_message.Message):
    __slots__ = ("name", "title", "notes", "state", "priority", "labels", "due_time", "create_time", "update_time", "complete_time", "etag")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Todo.State]
        STATE_ACTIVE: _ClassVar[Todo.State]
        STATE_COMPLETED: _ClassVar[Todo.State]
    STATE_UNSPECIFIED: Todo.State
    STATE_ACTIVE: Todo.State
    STATE_COMPLETED: Todo.State
    class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PRIORITY_UNSPECIFIED: _ClassVar[Todo.Priority]
        PRIORITY_LOW: _ClassVar[Todo.Priority]
        PRIORITY_NORMAL: _ClassVar[Todo.Priority]
        PRIORITY_HIGH: _ClassVar[Todo.Priority]
        PRIORITY_URGENT: _ClassVar[Todo.Priority]
    PRIORITY_UNSPECIFIED: Todo.Priority
    PRIORITY_LOW: Todo.Priority
    PRIORITY_NORMAL: Todo.Priority
    PRIORITY_HIGH: Todo.Priority
    PRIORITY_URGENT: Todo.Priority
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    notes: str
    state: Todo.State
    priority: Todo.Priority
    labels: _containers.RepeatedScalarFieldContainer[str]
    due_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    complete_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., notes: _Optional[str] = ..., state: _Optional[_Union[Todo.State, str]] = ..., priority: _Optional[_Union[Todo.Priority, str]] = ..., labels: _Optional[_Iterable[str]] = ..., due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., complete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class TodoList(_message.Message):
    __slots__ = ("name", "title", "members", "create_time", "update_time", "etag")
    class MembersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Role
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Role, str]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    members: _containers.ScalarMap[str, Role]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., members: _Optional[_Mapping[str, Role]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class Consistency(_message.Message):
    __slots__ = ("minimize_latency", "max_staleness", "at_least_as_fresh", "fully_consistent", "cached_only")
    MINIMIZE_LATENCY_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_AS_FRESH_FIELD_NUMBER: _ClassVar[int]
    FULLY_CONSISTENT_FIELD_NUMBER: _ClassVar[int]
    CACHED_ONLY_FIELD_NUMBER: _ClassVar[int]
    minimize_latency: bool
    max_staleness: _duration_pb2.Duration
    at_least_as_fresh: str
    fully_consistent: bool
    cached_only: bool
    def __init__(self, minimize_latency: _Optional[bool] = ..., max_staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., at_least_as_fresh: _Optional[str] = ..., fully_consistent: _Optional[bool] = ..., cached_only: _Optional[bool] = ...) -> None: ...

class ReadInfo(_message.Message):
    __slots__ = ("token", "source", "staleness_bound", "stale")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_BOUND_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    token: str
    source: Source
    staleness_bound: _duration_pb2.Duration
    stale: bool
    def __init__(self, token: _Optional[str] = ..., source: _Optional[_Union[Source, str]] = ..., staleness_bound: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stale: _Optional[bool] = ...) -> None: ...

class GetTodoRequest(_message.Message):
    __slots__ = ("name", "consistency")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    name: str
    consistency: Consistency
    def __init__(self, name: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ...) -> None: ...

class GetTodoResponse(_message.Message):
    __slots__ = ("todo", "read")
    TODO_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    todo: Todo
    read: ReadInfo
    def __init__(self, todo: _Optional[_Union[Todo, _Mapping]] = ..., read: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class BatchGetTodosRequest(_message.Message):
    __slots__ = ("names", "consistency")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    consistency: Consistency
    def __init__(self, names: _Optional[_Iterable[str]] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ...) -> None: ...

class BatchGetTodosResponse(_message.Message):
    __slots__ = ("todos", "missing", "read", "unreadable")
    TODOS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    todos: _containers.RepeatedCompositeFieldContainer[Todo]
    missing: _containers.RepeatedScalarFieldContainer[str]
    read: ReadInfo
    unreadable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, todos: _Optional[_Iterable[_Union[Todo, _Mapping]]] = ..., missing: _Optional[_Iterable[str]] = ..., read: _Optional[_Union[ReadInfo, _Mapping]] = ..., unreadable: _Optional[_Iterable[str]] = ...) -> None: ...

class ListTodosRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "order_by", "consistency")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    consistency: Consistency
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ...) -> None: ...

class ListTodosResponse(_message.Message):
    __slots__ = ("todos", "next_page_token", "read", "unreadable")
    TODOS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    todos: _containers.RepeatedCompositeFieldContainer[Todo]
    next_page_token: str
    read: ReadInfo
    unreadable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, todos: _Optional[_Iterable[_Union[Todo, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., read: _Optional[_Union[ReadInfo, _Mapping]] = ..., unreadable: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateTodoRequest(_message.Message):
    __slots__ = ("parent", "todo", "todo_id", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TODO_FIELD_NUMBER: _ClassVar[int]
    TODO_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    todo: Todo
    todo_id: str
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., todo: _Optional[_Union[Todo, _Mapping]] = ..., todo_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateTodoResponse(_message.Message):
    __slots__ = ("todo", "token")
    TODO_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    todo: Todo
    token: str
    def __init__(self, todo: _Optional[_Union[Todo, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class UpdateTodoRequest(_message.Message):
    __slots__ = ("todo", "update_mask", "allow_missing", "request_id")
    TODO_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    todo: Todo
    update_mask: _field_mask_pb2.FieldMask
    allow_missing: bool
    request_id: str
    def __init__(self, todo: _Optional[_Union[Todo, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., allow_missing: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateTodoResponse(_message.Message):
    __slots__ = ("todo", "token")
    TODO_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    todo: Todo
    token: str
    def __init__(self, todo: _Optional[_Union[Todo, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class DeleteTodoRequest(_message.Message):
    __slots__ = ("name", "etag", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DeleteTodoResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class WatchTodosRequest(_message.Message):
    __slots__ = ("parent", "names", "after", "include_todo", "progress_interval")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TODO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    parent: str
    names: _containers.RepeatedScalarFieldContainer[str]
    after: str
    include_todo: bool
    progress_interval: _duration_pb2.Duration
    def __init__(self, parent: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., after: _Optional[str] = ..., include_todo: _Optional[bool] = ..., progress_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetTodoListRequest(_message.Message):
    __slots__ = ("name", "consistency")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    name: str
    consistency: Consistency
    def __init__(self, name: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ...) -> None: ...

class GetTodoListResponse(_message.Message):
    __slots__ = ("todo_list", "read")
    TODO_LIST_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    todo_list: TodoList
    read: ReadInfo
    def __init__(self, todo_list: _Optional[_Union[TodoList, _Mapping]] = ..., read: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class ListTodoListsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "consistency")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    consistency: Consistency
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, _Mapping]] = ...) -> None: ...

class ListTodoListsResponse(_message.Message):
    __slots__ = ("todo_lists", "next_page_token", "read", "unreadable")
    TODO_LISTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    todo_lists: _containers.RepeatedCompositeFieldContainer[TodoList]
    next_page_token: str
    read: ReadInfo
    unreadable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, todo_lists: _Optional[_Iterable[_Union[TodoList, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., read: _Optional[_Union[ReadInfo, _Mapping]] = ..., unreadable: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateTodoListRequest(_message.Message):
    __slots__ = ("todo_list", "todo_list_id", "request_id")
    TODO_LIST_FIELD_NUMBER: _ClassVar[int]
    TODO_LIST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    todo_list: TodoList
    todo_list_id: str
    request_id: str
    def __init__(self, todo_list: _Optional[_Union[TodoList, _Mapping]] = ..., todo_list_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateTodoListResponse(_message.Message):
    __slots__ = ("todo_list", "token")
    TODO_LIST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    todo_list: TodoList
    token: str
    def __init__(self, todo_list: _Optional[_Union[TodoList, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class UpdateTodoListRequest(_message.Message):
    __slots__ = ("todo_list", "update_mask")
    TODO_LIST_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    todo_list: TodoList
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, todo_list: _Optional[_Union[TodoList, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateTodoListResponse(_message.Message):
    __slots__ = ("todo_list", "token")
    TODO_LIST_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    todo_list: TodoList
    token: str
    def __init__(self, todo_list: _Optional[_Union[TodoList, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class DeleteTodoListRequest(_message.Message):
    __slots__ = ("name", "etag", "force")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    force: bool
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class DeleteTodoListResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class WatchTodosResponse(_message.Message):
    __slots__ = ("token", "change", "progress", "reset")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    token: str
    change: TodoChange
    progress: WatchProgress
    reset: WatchReset
    def __init__(self, token: _Optional[str] = ..., change: _Optional[_Union[TodoChange, _Mapping]] = ..., progress: _Optional[_Union[WatchProgress, _Mapping]] = ..., reset: _Optional[_Union[WatchReset, _Mapping]] = ...) -> None: ...

class TodoChange(_message.Message):
    __slots__ = ("name", "kind", "todo", "commit_time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[TodoChange.Kind]
        KIND_CREATED: _ClassVar[TodoChange.Kind]
        KIND_UPDATED: _ClassVar[TodoChange.Kind]
        KIND_DELETED: _ClassVar[TodoChange.Kind]
    KIND_UNSPECIFIED: TodoChange.Kind
    KIND_CREATED: TodoChange.Kind
    KIND_UPDATED: TodoChange.Kind
    KIND_DELETED: TodoChange.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TODO_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: TodoChange.Kind
    todo: Todo
    commit_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[TodoChange.Kind, str]] = ..., todo: _Optional[_Union[Todo, _Mapping]] = ..., commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchProgress(_message.Message):
    __slots__ = ("staleness_bound",)
    STALENESS_BOUND_FIELD_NUMBER: _ClassVar[int]
    staleness_bound: _duration_pb2.Duration
    def __init__(self, staleness_bound: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchReset(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
