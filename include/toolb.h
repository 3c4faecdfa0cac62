/*
 * toolB: an application server in a library.
 *
 * Conventions
 *   Names       toolb_ for functions and types, TOOLB_ for constants.
 *   Errors      Functions return a toolb_status; TOOLB_OK is 0. toolb_status_text explains a status,
 *               toolb_engine_error tells what went wrong with an engine. NULL where an object is
 *               needed is answered by TOOLB_NULL_ARGUMENT, never by a crash.
 *   Arguments   The object first, then what goes in, then where results are stored. Texts that go in
 *               are NUL-terminated UTF-8 unless a length goes with them.
 *   Ownership   "owns": the caller frees it with the function named. "borrows": it belongs to
 *               somebody else and ends with what the comment says. "copied": free yours at will.
 *   Threads     Each function says which threads may call it; where none is said, one thread at a
 *               time for one object.
 *   Structs     One that goes in begins with struct_size: set it to sizeof the struct, and the rest
 *               to zero, so that a newer library knows which fields you know.
 *
 * Generated from the crate in ffi/; `make header` writes it anew.
 */


#ifndef TOOLB_H
#define TOOLB_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TOOLB_MUST_USE __attribute__((warn_unused_result))
#else
#define TOOLB_MUST_USE
#endif


/*
 The version of the ABI this library speaks. Within one version structs only grow at their end
 and functions are only added.
 */
#define TOOLB_ABI_VERSION 1

/*
 The response is complete; the connection goes on as HTTP has it.
 */
#define TOOLB_DONE 0

/*
 The response is complete; the connection closes after it.
 */
#define TOOLB_CLOSE 1

/*
 A time that never ends.
 */
#define TOOLB_NO_TIMEOUT UINT32_MAX

/*
 What a function returns. Numbers are never reused; a program must expect ones it does not know.
 */
typedef enum {
    /*
     It worked.
     */
    TOOLB_OK = 0,
    /*
     An argument that must not be NULL is NULL.
     */
    TOOLB_NULL_ARGUMENT = 100,
    /*
     A text argument is not UTF-8.
     */
    TOOLB_NOT_UTF8 = 101,
    /*
     `struct_size` is smaller than the first version of the struct.
     */
    TOOLB_BAD_STRUCT_SIZE = 102,
    /*
     An option, address or route that cannot be meant; the engine's error text says why.
     */
    TOOLB_BAD_ARGUMENT = 103,
    /*
     The buffer is too small; the size needed was stored.
     */
    TOOLB_BUFFER_TOO_SMALL = 104,
    /*
     There is nothing by that name or index.
     */
    TOOLB_NOT_FOUND = 105,
    /*
     Not in this state: configuring an engine that runs, or running one that has run.
     */
    TOOLB_BAD_STATE = 200,
    /*
     The engine could not start; its error text says why and what to do.
     */
    TOOLB_CANNOT_START = 201,
    /*
     Not here: this may be called in a callback on the loop that owns the thing, and nowhere else.
     */
    TOOLB_WRONG_LOOP = 202,
    /*
     The other side has gone: the client left, it was closed, or the engine has stopped.
     */
    TOOLB_GONE = 300,
    /*
     The window is used up; nothing was taken.
     */
    TOOLB_FULL = 301,
    /*
     The time given is over.
     */
    TOOLB_TIMEOUT = 302,
    /*
     A consumer could not attach to the bus.
     */
    TOOLB_CANNOT_ATTACH = 400,
    /*
     The engine has gone, or it drains and everything is done.
     */
    TOOLB_HANG_UP = 401,
    /*
     What came over the bus breaks its rules.
     */
    TOOLB_BUS_VIOLATION = 402,
    /*
     A defect of the library; the engine's error text describes it.
     */
    TOOLB_PANIC = 900,
} toolb_status;

/*
 Why a stream ended. A program must expect numbers it does not know.
 */
typedef enum {
    /*
     toolb_stream_close; everything queued has been handed to the system.
     */
    TOOLB_REASON_CLOSED = 1,
    /*
     The peer ended its side; everything queued has been handed to the system.
     */
    TOOLB_REASON_PEER_CLOSED = 2,
    /*
     The connection broke.
     */
    TOOLB_REASON_RESET = 3,
    /*
     toolb_stream_abort.
     */
    TOOLB_REASON_ABORTED = 4,
    /*
     It was idle for too long and the service has no on_timeout.
     */
    TOOLB_REASON_TIMEOUT = 5,
    /*
     The peer took nothing of what was queued for too long.
     */
    TOOLB_REASON_SEND_TIMEOUT = 6,
    /*
     The engine ends.
     */
    TOOLB_REASON_STOPPING = 7,
} toolb_reason;

/*
 An engine. Made by toolb_engine_new, freed by toolb_engine_free. Configured by one thread before
 it runs; toolb_engine_stop and the functions that ask may be called by any thread.
 */
typedef struct toolb_engine toolb_engine;

/*
 A request, lent to a handler for the time of its call. All slices taken from it end with the
 call.
 */
typedef struct toolb_request toolb_request;

/*
 The response a handler writes, lent to it for the time of its call. Content-Length, Date and
 Connection are the engine's to add.
 */
typedef struct toolb_response toolb_response;

/*
 Settings of an engine; 0 leaves a setting at its default. Set `struct_size` first.
 */
typedef struct {
    /*
     `sizeof(toolb_options)`.
     */
    size_t struct_size;
    /*
     I/O threads; 1 by default.
     */
    uint32_t loops;
    /*
     Connections the kernel may hold before they are accepted; 2048 by default.
     */
    uint32_t backlog;
    /*
     Bytes of a request's body, at most; 100 MiB by default.
     */
    uint64_t limit_request_body;
    /*
     Milliseconds that a kept-alive connection may be idle; 5000 by default.
     */
    uint32_t timeout_keep_alive_ms;
    /*
     Milliseconds for what was accepted to end after a stop; 30000 by default.
     */
    uint32_t timeout_graceful_shutdown_ms;
} toolb_options;

/*
 A handler: answers `request` through `response` and returns TOOLB_DONE or TOOLB_CLOSE; any other
 number closes the connection, too.

 It is called on the loop thread of the request's connection: calls on different loops overlap,
 and as long as it runs every other connection of its loop waits. It must not throw or longjmp.
 */
typedef int (*toolb_handler)(void *user_data, const toolb_request *request, toolb_response *response);

/*
 Bytes of somebody else; not NUL-terminated.
 */
typedef struct {
    /*
     The first byte; never NULL, but not to be read if `len` is 0.
     */
    const char *data;
    /*
     How many bytes.
     */
    size_t len;
} toolb_slice;

/*
 The name of a raw connection: never 0 and never used again, so that a function that is given the
 name of one that has ended answers TOOLB_GONE. It means something on the loop that owns the
 connection only: elsewhere the answer is TOOLB_WRONG_LOOP.
 */
typedef uint64_t toolb_stream;

/*
 Callbacks about one stream.
 */
typedef void (*toolb_stream_callback)(void *state, toolb_stream stream);

/*
 Callbacks about a loop.
 */
typedef void (*toolb_loop_callback)(void *state, uint32_t index);

/*
 A service of raw connections: callbacks, each of which may be NULL, and limits. Set `struct_size`
 first, and to zero what you do not need.

 Each loop has a `state` of its own. All callbacks of a loop run on its thread, one after the other
 and to their end, so what only they use needs no locks; and as long as one runs, everything else
 on its loop waits (one that takes more than 100 ms is counted as an overrun). They must not block,
 throw or longjmp. A function of this library that they call never calls back: what follows from it
 comes after the callback has returned.
 */
typedef struct {
    /*
     `sizeof(toolb_service)`.
     */
    size_t struct_size;
    /*
     Called first, once on each loop, before it accepts a connection: returns the loop's `state`.
     NULL: the state of every loop is `user_data`.
     */
    void *(*on_init)(void *user_data, uint32_t index);
    /*
     A client has connected.
     */
    toolb_stream_callback on_accept;
    /*
     There are unread bytes: see toolb_stream_want for when this is called.
     */
    toolb_stream_callback on_receive;
    /*
     Nothing has happened for as long as toolb_stream_want or `default_timeout_ms` allows; what is
     not closed here waits again. NULL: the stream is closed.
     */
    toolb_stream_callback on_timeout;
    /*
     The stream has ended: called exactly once for each one that was accepted or connected. Its
     name becomes invalid when this returns; what came and was not read can still be read here.
     */
    void (*on_close)(void *state, toolb_stream stream, toolb_reason reason);
    /*
     An outgoing connection is there.
     */
    toolb_stream_callback on_connect;
    /*
     An outgoing connection came to nothing; its name becomes invalid when this returns, and no
     on_close follows. `error` is a number of errno.h: ETIMEDOUT after the time given, ECANCELED
     if it was closed or the engine ends.
     */
    void (*on_connect_fail)(void *state, toolb_stream stream, int error);
    /*
     The loop ends: the last call, once on each loop, after every stream has been closed. The place
     to free `state`.
     */
    toolb_loop_callback on_exit;
    /*
     Milliseconds that a stream may be idle when its callbacks do not say; 0: 60000,
     TOOLB_NO_TIMEOUT: for ever.
     */
    uint32_t default_timeout_ms;
    /*
     Bytes that are read ahead of the callbacks, and so the most that toolb_stream_peek shows;
     0: 262144.
     */
    uint32_t receive_limit;
    /*
     Bytes that toolb_stream_send may have queued; 0: 262144.
     */
    uint32_t send_limit;
    /*
     After toolb_stream_send answered TOOLB_FULL: half of the room is free again.
     */
    toolb_stream_callback on_writable;
    /*
     The engine has stopped accepting and ends when all connections have, at the latest after its
     grace time: a service whose streams do not end by themselves says goodbye here.
     */
    toolb_loop_callback on_drain;
} toolb_service;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the ABI that the loaded library speaks. A program compares it with the
 `TOOLB_ABI_VERSION` it was compiled with. Any thread, any time.
 */
uint32_t toolb_abi_version(void);

/*
 The release of the loaded library, such as "0.1.0". Never freed. Any thread, any time.
 */
const char *toolb_version(void);

/*
 Makes an engine with the given settings (NULL: all defaults) and stores it in `out`, which the
 caller then owns.

 # Safety
 `options` is NULL or points to a toolb_options; `out` may be written or is NULL.
 */
toolb_status toolb_engine_new(const toolb_options *options, toolb_engine **out);

/*
 Adds an address to listen on: a host name or address, and a port (0: a free one is picked, see
 toolb_engine_address). The address is bound when the engine starts. The text is copied.

 # Safety
 `engine` is a live engine; `host` is NUL-terminated. Each may be NULL.
 */
toolb_status toolb_engine_listen(toolb_engine *engine, const char *host, uint16_t port);

/*
 Adds a route: requests with this method ("GET", or "*" for all) and a path that fits the pattern
 ("/", "/user/{id}", "/files/{*rest}") are answered by `handler`, which gets `user_data`. A HEAD
 is answered by the handler of GET. The texts are copied; `user_data` is borrowed until the engine
 is freed and used from all loop threads at once.

 # Safety
 `engine` is a live engine; the texts are NUL-terminated; `handler` is a function of that type.
 Each may be NULL.
 */
toolb_status toolb_engine_route(toolb_engine *engine,
                                const char *method,
                                const char *pattern,
                                toolb_handler handler,
                                void *user_data);

/*
 Binds the addresses and starts the loops; returns when it accepts connections. The caller then
 calls toolb_engine_run, or goes on and calls toolb_engine_stop later.

 # Safety
 `engine` is a live engine or NULL.
 */
toolb_status toolb_engine_start(toolb_engine *engine);

/*
 Starts the engine unless it is started, and serves until toolb_engine_stop is called; then lets
 what was accepted end, at most for the grace time.

 # Safety
 `engine` is a live engine or NULL, not to be freed before this returns.
 */
toolb_status toolb_engine_run(toolb_engine *engine);

/*
 Makes toolb_engine_run return. Any thread, any number of times, and from signal handlers.

 # Safety
 `engine` is a live engine or NULL.
 */
toolb_status toolb_engine_stop(toolb_engine *engine);

/*
 Copies the address number `index` that a running engine listens on, such as
 "http://127.0.0.1:8080", to `buffer`. `needed`, if not NULL, gets the size it takes.

 # Safety
 `engine` is a live engine or NULL; `buffer` has room for `capacity` bytes; `needed` may be
 written or is NULL.
 */
toolb_status toolb_engine_address(const toolb_engine *engine,
                                  size_t index,
                                  char *buffer,
                                  size_t capacity,
                                  size_t *needed);

/*
 Copies the text of the engine's last error, one line that says what to do, to `buffer`; empty if
 there was none. `needed`, if not NULL, gets the size it takes.

 # Safety
 As for toolb_engine_address.
 */
toolb_status toolb_engine_error(const toolb_engine *engine,
                                char *buffer,
                                size_t capacity,
                                size_t *needed);

/*
 Ends the engine at once if it still runs, and frees it. NULL is allowed. Not while
 toolb_engine_run runs, and not from a handler.

 # Safety
 `engine` is NULL or was made by toolb_engine_new and not freed before; nobody uses it any more.
 */
void toolb_engine_free(toolb_engine *engine);

/*
 The method, as sent, such as "GET". Borrows from `request`.

 # Safety
 `request` is what the handler was called with, during that call, or NULL.
 */
toolb_slice toolb_request_method(const toolb_request *request);

/*
 The path, percent-decoded, without the query. Borrows from `request`.

 # Safety
 `request` is what the handler was called with, during that call, or NULL.
 */
toolb_slice toolb_request_path(const toolb_request *request);

/*
 The query, as sent, without its question mark. Borrows from `request`.

 # Safety
 `request` is what the handler was called with, during that call, or NULL.
 */
toolb_slice toolb_request_query(const toolb_request *request);

/*
 The whole body. Borrows from `request`.

 # Safety
 `request` is what the handler was called with, during that call, or NULL.
 */
toolb_slice toolb_request_body(const toolb_request *request);

/*
 Stores in `out` what the route's parameter `name` stands for: for the route "/user/{id}" and
 the path "/user/7", "id" is "7". TOOLB_NOT_FOUND if the route has no such parameter.

 # Safety
 `request` is what the handler was called with, during that call; `name` is NUL-terminated; `out`
 may be written. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_request_param(const toolb_request *request, const char *name, toolb_slice *out);

/*
 Stores in `out` the value of the first field called `name`, in any case. TOOLB_NOT_FOUND if
 there is none.

 # Safety
 As for toolb_request_param.
 */
toolb_status toolb_request_field(const toolb_request *request, const char *name, toolb_slice *out);

/*
 Sets the status code of the response; 200 when not called. One outside of 200 to 599 makes the
 answer a 500.

 # Safety
 `response` is what the handler was called with, during that call, or NULL.
 */
toolb_status toolb_response_status(toolb_response *response, uint16_t status);

/*
 Adds a field to the response; both texts are copied. One that HTTP does not allow makes the
 answer a 500.

 # Safety
 `response` is what the handler was called with, during that call; `name` and `value` are
 NUL-terminated. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_response_field(toolb_response *response, const char *name, const char *value);

/*
 Appends `len` bytes to the body of the response; they are copied.

 # Safety
 `response` is what the handler was called with, during that call; `data` points to `len` bytes.
 Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT unless `len` is 0.
 */
toolb_status toolb_response_write(toolb_response *response, const char *data, size_t len);

/*
 A line of text for a status; never NULL, never freed. Any thread, any time.
 */
const char *toolb_status_text(int32_t status);

/*
 Adds a service for raw connections that come to a host name or address and a port (0: a free one
 is picked, see toolb_engine_address: services come after what toolb_engine_listen added, as
 "tcp://127.0.0.1:9000"). With `host` NULL it has no address and lives on connections that it makes.
 The address is bound when the engine starts. `service` and `host` are copied; `user_data` is
 borrowed until the engine is freed and goes to on_init on all loop threads at once.

 # Safety
 `engine` is a live engine; `host` is NUL-terminated; `service` points to a toolb_service whose
 callbacks are functions of those types. Each may be NULL.
 */
toolb_status toolb_engine_service(toolb_engine *engine,
                                  const char *host,
                                  uint16_t port,
                                  const toolb_service *service,
                                  void *user_data);

/*
 Adds a service for raw connections that come to a Unix stream socket, whose file gets the
 permissions `mode` (0: those that the umask leaves). Otherwise as toolb_engine_service.

 # Safety
 As for toolb_engine_service; `path` is NUL-terminated or NULL.
 */
toolb_status toolb_engine_service_unix(toolb_engine *engine,
                                       const char *path,
                                       uint32_t mode,
                                       const toolb_service *service,
                                       void *user_data);

/*
 Arms one next event of a stream: on_receive when at least one byte is unread (be it an old one:
 then in the next turn of the loop), on_close, or on_timeout when neither has come after
 `timeout_ms` (0: the service's default; TOOLB_NO_TIMEOUT: never). The last call counts.

 Without it on_receive comes when new bytes come, under the default timeout; bytes that a callback
 left unread are then not told of again by themselves. Callbacks of the stream's loop only.
 */
toolb_status toolb_stream_want(toolb_stream stream, uint32_t timeout_ms);

/*
 As toolb_stream_want, but on_receive comes when at least `least` bytes are unread, or the peer has
 ended its side: what a protocol with lengths wants. TOOLB_BAD_ARGUMENT above the service's
 receive_limit. Callbacks of the stream's loop only.
 */
toolb_status toolb_stream_want_bytes(toolb_stream stream, size_t least, uint32_t timeout_ms);

/*
 Moves unread bytes, at most `capacity`, to `buffer` and stores in `got` how many; 0 if there are
 none now. Never blocks. Callbacks of the stream's loop only.

 # Safety
 `buffer` has room for `capacity` bytes; `got` may be written. Each may be NULL, which is answered
 by TOOLB_NULL_ARGUMENT (`buffer` unless `capacity` is 0).
 */
toolb_status toolb_stream_recv(toolb_stream stream, void *buffer, size_t capacity, size_t *got);

/*
 Stores in `out` the unread bytes, without copying them. They stay where they are until the
 callback that runs returns, whatever it does meanwhile. Callbacks of the stream's loop only.

 # Safety
 `out` may be written or is NULL.
 */
toolb_status toolb_stream_peek(toolb_stream stream, toolb_slice *out);

/*
 Takes `count` unread bytes as read. TOOLB_BAD_ARGUMENT if there are fewer. Callbacks of the
 stream's loop only.
 */
toolb_status toolb_stream_consume(toolb_stream stream, size_t count);

/*
 Queues all of `data`, which is copied, or nothing; what is queued goes out at the end of the
 loop's turn. TOOLB_FULL: there is no room now, on_writable will tell when half of it is free.
 TOOLB_BAD_ARGUMENT: `len` is more than the service's send_limit. TOOLB_GONE: the stream is ending.
 Callbacks of the stream's loop only.

 # Safety
 `data` points to `len` bytes; NULL is answered by TOOLB_NULL_ARGUMENT unless `len` is 0.
 */
toolb_status toolb_stream_send(toolb_stream stream, const void *data, size_t len);

/*
 Stores in `out` how many queued bytes have not been handed to the system. Callbacks of the
 stream's loop only.

 # Safety
 `out` may be written or is NULL.
 */
toolb_status toolb_stream_unsent(toolb_stream stream, size_t *out);

/*
 Ends a stream once everything queued has been sent; on_receive comes no more, on_close does, after
 the running callback. Closing again is allowed. Callbacks of the stream's loop only.
 */
toolb_status toolb_stream_close(toolb_stream stream);

/*
 Ends a stream at once by a reset; what is queued is lost. on_close comes after the running
 callback. Also while it is closing. Callbacks of the stream's loop only.
 */
toolb_status toolb_stream_abort(toolb_stream stream);

/*
 Begins to connect to a numeric address, such as "127.0.0.1" or "::1", and a port, or to a Unix
 socket ("unix:/path", whatever the port), and stores the stream in `out`. Either on_connect or
 on_connect_fail follows, once, after the running callback; toolb_stream_send queues meanwhile.

 The stream belongs to the service whose callback runs; in timers and request handlers to the
 engine's only service (TOOLB_BAD_STATE if it has several). `timeout_ms` is the time for connecting
 (0: 30000, TOOLB_NO_TIMEOUT: the system's). `user_data` is borrowed: see toolb_stream_user.
 TOOLB_BAD_ARGUMENT: no such address. TOOLB_GONE: the engine ends. Callbacks on a loop only.

 # Safety
 `host` is NUL-terminated; `out` may be written. Each may be NULL.
 */
toolb_status toolb_stream_connect(const char *host,
                                  uint16_t port,
                                  uint32_t timeout_ms,
                                  void *user_data,
                                  toolb_stream *out);

/*
 Keeps a pointer with a stream; it is borrowed. Callbacks of the stream's loop only.

 # Safety
 The pointer is only stored.
 */
toolb_status toolb_stream_set_user(toolb_stream stream, void *user_data);

/*
 The pointer that was kept with a stream; NULL if there is none, if the stream has gone, and
 outside of callbacks of its loop.
 */
void *toolb_stream_user(toolb_stream stream);

/*
 Copies the peer's address, such as "127.0.0.1:50000" or "[::1]:50000", or "unix:" on a Unix
 socket, to `buffer`. `needed`, if not NULL, gets the size it takes; 64 is enough. Callbacks of the
 stream's loop only.

 # Safety
 `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
 */
toolb_status toolb_stream_peer(toolb_stream stream, char *buffer, size_t capacity, size_t *needed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TOOLB_H */
