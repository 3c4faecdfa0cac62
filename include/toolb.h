/*
 * toolB: an application server in a library.
 *
 * Conventions
 *   Names       toolb_ for functions and types, TOOLB_ for constants.
 *   Errors      Functions return a toolb_status; TOOLB_OK is 0. toolb_status_text explains a status,
 *               toolb_engine_error tells what went wrong with an engine, be it one that could not be
 *               made, toolb_last_error what did in this thread's last call that failed. NULL where an object is needed is answered by TOOLB_NULL_ARGUMENT,
 *               never by a crash.
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
 Nothing has come.
 */
#define TOOLB_EVENT_NONE 0

/*
 A request, which the program now holds: `request` is its head, `data` its body as far as it has
 come. It ends with toolb_exchange_answer, _done or _abort.
 */
#define TOOLB_EVENT_REQUEST 1

/*
 More of a request's body: `data`, until the next call of toolb_consumer_next, _poll, _arm or
 _wait.
 */
#define TOOLB_EVENT_BODY 2

/*
 The client has gone, the deadline has passed, or the engine has: nothing can be answered any more.
 Of a stream: its connection broke, or its client took nothing for too long.
 The exchange still is the program's until toolb_exchange_done or _abort.
 */
#define TOOLB_EVENT_CANCELLED 3

/*
 An exchange or stream that was told TOOLB_FULL has room again.
 */
#define TOOLB_EVENT_WRITABLE 4

/*
 The request's body will not be completed; a response is still welcome.
 */
#define TOOLB_EVENT_BODY_ABORTED 5

/*
 The engine sends no more requests: finish what there is; when all is done, TOOLB_EVENT_HANG_UP
 comes.
 */
#define TOOLB_EVENT_DRAIN 6

/*
 Nothing will come any more: the engine has gone, or it drains and the last exchange is done. Free
 the consumer.
 */
#define TOOLB_EVENT_HANG_UP 7

/*
 A client has connected to an address of toolb_engine_stream_pool. The stream is an exchange without
 a request: `exchange` is its number, toolb_exchange_write sends, toolb_exchange_end and then _done
 close it, toolb_exchange_abort resets it. It lasts until the program has let go of it.
 */
#define TOOLB_EVENT_STREAM_OPEN 8

/*
 Bytes of a stream: `data`, until the next call of toolb_consumer_next, _poll, _arm or _wait. With
 TOOLB_EVENT_END the client has ended its side: it sends no more, but still reads. Then `data` may
 be empty.
 */
#define TOOLB_EVENT_STREAM_DATA 9

/*
 Nothing has come on a stream for as long as toolb_exchange_want or `timeout_stream_idle_ms` of the
 engine allows: a program that knows no better says goodbye, and toolb_exchange_end and _done. What
 is not ended waits again, for the engine's time.
 */
#define TOOLB_EVENT_STREAM_TIMEOUT 10

/*
 A flag of TOOLB_EVENT_REQUEST and _BODY: with this event the request's body is complete; and of
 TOOLB_EVENT_STREAM_DATA: the last one of its stream.
 */
#define TOOLB_EVENT_END 1

/*
 As a length of toolb_exchange_file: all that follows.
 */
#define TOOLB_REST UINT64_MAX

/*
 The response is complete; the connection goes on as HTTP has it.
 */
#define TOOLB_DONE 0

/*
 The response is complete; the connection closes after it.
 */
#define TOOLB_CLOSE 1

/*
 The response comes later, from the holder of the token that toolb_response_later gave.
 */
#define TOOLB_LATER 2

/*
 There is something to read, be it the end.
 */
#define TOOLB_WATCH_READ 1

/*
 There is room to write.
 */
#define TOOLB_WATCH_WRITE 2

/*
 The descriptor has an error, or the other side has hung up. Reported whether asked for or not.
 */
#define TOOLB_WATCH_ERROR 4

/*
 For options that say so: none of it.
 */
#define TOOLB_OFF UINT32_MAX

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
     An option, address or route that cannot be meant; toolb_engine_error says why, or where there is
     no engine, toolb_last_error.
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
     Too early, too late or not from here: configuring an engine that runs, the status of an answer
     that has begun, a second use at the same time. toolb_last_error says which.
     */
    TOOLB_BAD_STATE = 200,
    /*
     The engine could not start; its error text says why and what to do.
     */
    TOOLB_CANNOT_START = 201,
    /*
     Outside of a callback on the loop that owns the object.
     */
    TOOLB_WRONG_LOOP = 202,
    /*
     The client has left, the object was closed, or the engine has stopped: what was said is lost.
     */
    TOOLB_GONE = 300,
    /*
     The window is used up; nothing was taken. Try again when told that there is room.
     */
    TOOLB_FULL = 301,
    /*
     The time is over.
     */
    TOOLB_TIMEOUT = 302,
    /*
     The process has no descriptor or no memory left for it.
     */
    TOOLB_NO_DESCRIPTOR = 303,
    /*
     A consumer could not attach to its engine; toolb_last_error says why and what to do.
     */
    TOOLB_CANNOT_ATTACH = 400,
    /*
     The engine has gone, or drains and all is done: the consumer has nothing left to do.
     */
    TOOLB_HANG_UP = 401,
    /*
     The engine broke the rules of the bus; toolb_last_error says which. Free the consumer.
     */
    TOOLB_BUS_VIOLATION = 402,
    /*
     A defect of the library; toolb_last_error describes it.
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
 A consumer: one end of the bus to an engine. Made by toolb_consumer_attach, freed by
 toolb_consumer_free. One thread at a time may use it, and not from within a handler of
 toolb_consumer_run; a call that breaks this rule answers TOOLB_BAD_STATE and does nothing.
 Several consumers of one process are independent of each other. A process that was forked must
 not use the consumers of its parent; there toolb_consumer_free does nothing.
 */
typedef struct toolb_consumer toolb_consumer;

/*
 An engine. Made by toolb_engine_new, freed by toolb_engine_free. Configured by one thread before
 it runs; toolb_engine_stop and the functions that ask may be called by any thread.

 An engine lives in the process that started it, as its threads do: fork, or call daemon(), before
 toolb_engine_start, not after it. In a process that was forked later all functions answer
 TOOLB_BAD_STATE and leave the engine of the other process alone.
 */
typedef struct toolb_engine toolb_engine;

/*
 A request. A handler has it for the time of its call; one that a consumer got with an event lives
 until its exchange is over. All slices taken from it end with it.
 */
typedef struct toolb_request toolb_request;

/*
 The response a handler writes, lent to it for the time of its call. Content-Length, Date and
 Connection are the engine's to add.
 */
typedef struct toolb_response toolb_response;

/*
 The right and the duty to answer one request later, from any thread.

 Made by toolb_response_later, for a handler that an engine runs as for one of toolb_consumer_run;
 ended by exactly one of toolb_token_end, toolb_token_answer and
 toolb_token_abort, which consume it: no other function may be called with it then, nor run at
 that time. Until then each function may be called by any thread, several at a time, too. Once
 nobody waits for the answer any more (the client has left, the time for the response is over, the
 engine has stopped or was freed, toolb_consumer_run has returned) they all return TOOLB_GONE; the
 token still has to be ended.
 */
typedef struct toolb_token toolb_token;

/*
 What a consumer says about itself; 0 and NULL leave a setting at its default. Set `struct_size`
 first.
 */
typedef struct {
    /*
     `sizeof(toolb_consumer_options)`.
     */
    size_t struct_size;
    /*
     What to call it in logs; "c" by default. Copied.
     */
    const char *name;
    /*
     The pool it belongs to; "main" by default. Copied.
     */
    const char *pool;
    /*
     Exchanges that may exist at once, at most 65535; 1024 by default.
     */
    uint32_t slots;
    /*
     Exchanges that the program may hold at once, at most 65535; as many as slots by default.
     */
    uint32_t concurrency;
    /*
     Requests that may be sent ahead of those it has begun, at most 65535; 16 by default. With 1,
     no request waits behind a slow one as long as another consumer is free.
     */
    uint32_t window;
    /*
     Milliseconds that the engine may take to answer; 10000 by default.
     */
    uint32_t attach_timeout_ms;
    /*
     Milliseconds to wait for an engine that is not there yet; by default it must be there.
     */
    uint32_t attach_patience_ms;
    /*
     Raw connections that it takes at once, among its exchanges, at most 65535; by default it takes
     none. They come as TOOLB_EVENT_STREAM_OPEN from engines with a toolb_engine_stream_pool.
     */
    uint32_t streams;
} toolb_consumer_options;

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
 What toolb_consumer_next found. Set `struct_size` first; the rest is written.
 */
typedef struct {
    /*
     `sizeof(toolb_event)`.
     */
    size_t struct_size;
    /*
     One of TOOLB_EVENT_*; a program must expect ones it does not know, and ignore them.
     */
    uint32_t kind;
    /*
     TOOLB_EVENT_END or 0.
     */
    uint32_t flags;
    /*
     The exchange, never 0; 0 if the event concerns none.
     */
    uint64_t exchange;
    /*
     Bytes of the request's body, or of a stream. Borrowed: those of a REQUEST until its exchange is
     over, others until the next call of toolb_consumer_next, _poll, _arm or _wait.
     */
    toolb_slice data;
    /*
     The request of a REQUEST, until its exchange is over; else NULL.
     */
    const toolb_request *request;
    /*
     What toolb_exchange_set_user_data was given; NULL before.
     */
    void *user_data;
} toolb_event;

/*
 A handler: answers `request` through `response` and returns TOOLB_DONE or TOOLB_CLOSE, or takes a
 token by toolb_response_later and returns TOOLB_LATER. Any other number closes the connection,
 too; a token and another number than TOOLB_LATER, or the other way round, is answered by a 500.

 An engine calls it on the loop thread of the request's connection: calls on different loops overlap,
 and as long as it runs every other connection of its loop waits. A consumer calls it on the thread
 of toolb_consumer_run. It must not throw or longjmp.
 */
typedef int (*toolb_handler)(void *user_data, const toolb_request *request, toolb_response *response);

/*
 A route with all it can have. Set `struct_size` first.
 */
typedef struct {
    /*
     `sizeof(toolb_route)`.
     */
    size_t struct_size;
    /*
     Answers the requests.
     */
    toolb_handler handler;
    /*
     For the functions of this route. Borrowed until the engine or consumer is freed; an engine uses
     it from all loop threads at once.
     */
    void *user_data;
    /*
     Makes what this route keeps on the loop number `loop_index`, for toolb_request_state. Called once
     on each loop's thread before its first request; it may start timers and watch descriptors.
     NULL: it keeps nothing. For consumers see toolb_consumer_add_route.
     */
    void *(*make_state)(void *user_data, uint32_t loop_index);
    /*
     Ends what `make_state` made, unless that was NULL: called once on the same thread when the
     loop ends, after every callback. NULL: nothing is to be ended.
     */
    void (*drop_state)(void *state);
} toolb_route;

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
     Bytes of a request's body, at most (413); 100 MiB by default.
     */
    uint64_t limit_request_body;
    /*
     Milliseconds that a kept-alive connection may be idle; 5000 by default. TOOLB_OFF closes
     every connection after one response.
     */
    uint32_t timeout_keep_alive_ms;
    /*
     Milliseconds for what was accepted to end after a stop; 30000 by default. TOOLB_OFF: none.
     */
    uint32_t timeout_graceful_shutdown_ms;
    /*
     Bytes of a request line, at most (414); 8 KiB by default.
     */
    uint32_t limit_request_line;
    /*
     Bytes of a request head, at most (431); 16 KiB by default.
     */
    uint32_t limit_request_head;
    /*
     Fields of a request, at most (431); 100 by default.
     */
    uint32_t limit_request_fields;
    /*
     Milliseconds for a request head to arrive (408); 30000 by default.
     */
    uint32_t timeout_request_header_ms;
    /*
     Milliseconds without a byte of a request's body (408); 30000 by default.
     */
    uint32_t timeout_request_body_ms;
    /*
     Bytes a second that a request's body must bring on average (408); 1024 by default. TOOLB_OFF:
     no minimum.
     */
    uint32_t request_body_min_rate;
    /*
     Milliseconds from the end of a request head to the head of its response (504); 60000 by
     default. TOOLB_OFF: no limit.
     */
    uint32_t timeout_response_ms;
    /*
     Milliseconds without a byte that a client takes while there is something to send; 30000 by
     default.
     */
    uint32_t timeout_send_idle_ms;
    /*
     Requests that may wait for a consumer (503); 1024 by default. TOOLB_OFF: none waits.
     */
    uint32_t queue_size;
    /*
     Milliseconds that a request may wait for a consumer (503); 10000 by default.
     */
    uint32_t queue_timeout_ms;
    /*
     Requests with consumers, or waiting for one, at most (503); no limit by default.
     */
    uint32_t limit_concurrency;
    /*
     Bytes of a request's body that may be on their way to a consumer; 64 KiB by default.
     */
    uint32_t request_window;
    /*
     Bytes of a response that may wait for its client, from a consumer or a token; 128 KiB by
     default.
     */
    uint32_t response_window;
    /*
     1 writes each request to standard output.
     */
    uint32_t access_log;
    /*
     1 leaves the Date field out of responses.
     */
    uint32_t no_date;
    /*
     1 keeps each loop on a CPU of its own, as far as there are enough.
     */
    uint32_t pin_loops;
    /*
     Milliseconds that a callback of a stream service may run before it is counted as an overrun;
     100 by default.
     */
    uint32_t callback_budget_ms;
    /*
     Raw connections that are with consumers, or wait for one, at most; more are reset. 512 by
     default.
     */
    uint32_t limit_streams;
    /*
     Milliseconds without an event of a raw connection with a consumer that did not say how long to
     wait (TOOLB_EVENT_STREAM_TIMEOUT); 60000 by default. TOOLB_OFF: no limit.
     */
    uint32_t timeout_stream_idle_ms;
    /*
     The Server field of responses; NULL for "toolb", "" for none. Copied.
     */
    const char *server;
} toolb_options;

/*
 A function that is kept, with its `user` pointer.
 */
typedef void (*toolb_callback)(void *user);

/*
 What is called when a watched descriptor is ready for `events`.
 */
typedef void (*toolb_watch_callback)(void *user, int fd, uint32_t events);

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
 on its loop waits (one that takes more than `callback_budget_ms` is counted as an overrun). They
 must not block, throw or longjmp. A function of this library that they call never calls back: what
 follows from it comes after the callback has returned.
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
     Not 0: a stream goes on when the peer ends its side. on_receive then tells of that end (see
     toolb_stream_ended), and the service closes when it has sent its last. 0: the stream closes by
     itself once on_receive has told of everything that came.
     */
    uint32_t half_open;
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

/*
 What an engine has counted since its start, summed over its loops. Set `struct_size` before each
 call; fields are only ever added at the end.
 */
typedef struct {
    /*
     `sizeof(toolb_stats)`.
     */
    size_t struct_size;
    /*
     Connections accepted.
     */
    uint64_t accepted;
    /*
     Connections open now.
     */
    uint64_t connections_active;
    /*
     Requests whose head was read.
     */
    uint64_t requests;
    /*
     Responses with a status of 200 to 299.
     */
    uint64_t responses_2xx;
    /*
     Responses with a status of 300 to 399.
     */
    uint64_t responses_3xx;
    /*
     Responses with a status of 400 to 499.
     */
    uint64_t responses_4xx;
    /*
     Responses with a status of 500 to 599.
     */
    uint64_t responses_5xx;
    /*
     Requests answered 504.
     */
    uint64_t timed_out;
    /*
     Requests answered 503 as the queue was full or the limit reached.
     */
    uint64_t overloaded;
    /*
     Requests answered 503 as they waited too long for a consumer.
     */
    uint64_t queue_timeouts;
    /*
     Requests answered 502 as their consumer died.
     */
    uint64_t worker_died;
    /*
     Bytes read from clients.
     */
    uint64_t bytes_in;
    /*
     Bytes sent to clients.
     */
    uint64_t bytes_out;
    /*
     Raw connections accepted for services.
     */
    uint64_t streams_accepted;
    /*
     Raw connections that services have made.
     */
    uint64_t streams_connected;
    /*
     Raw connections open now.
     */
    uint64_t streams_active;
    /*
     Callbacks of stream services that ran for too long.
     */
    uint64_t stream_overruns;
} toolb_stats;

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
 Has the engine send requests that no route matches to consumers, in place of answering 404. They
 wait while there is no consumer, as `toolb serve` has it. Before the engine starts.

 `bus_path` is where a socket is bound when it starts, for programs of the same user that call
 toolb_consumer_attach, and for `toolb work`. NULL is the usual place,
 `$XDG_RUNTIME_DIR/toolb/bus`; an empty text binds none: then there is only the consumer that
 toolb_engine_consumer makes. An engine that cannot bind it, because another one has, does not
 start: TOOLB_CANNOT_START. The text is copied.

 # Safety
 `engine` is a live engine or NULL; `bus_path` is NUL-terminated or NULL.
 */
toolb_status toolb_engine_pool(toolb_engine *engine, const char *bus_path);

/*
 Passes raw connections on to consumers: who connects to `host` and `port` (0: a free one is picked,
 see toolb_engine_address) is told of by TOOLB_EVENT_STREAM_OPEN to one that takes streams, and
 waits while there is none. Each takes one of that consumer's slots as long as it lasts. One that
 finds no room for `queue_timeout_ms` is reset, and so is one beyond `limit_streams`. Any number of
 addresses, before the engine starts, which needs toolb_engine_pool, too. The text is copied.

 # Safety
 `engine` is a live engine; `host` is NUL-terminated. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_engine_stream_pool(toolb_engine *engine, const char *host, uint16_t port);

/*
 The same at a Unix socket; `path` and `mode` are as for toolb_engine_listen_unix.

 # Safety
 `engine` is a live engine; `path` is NUL-terminated. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_engine_stream_pool_unix(toolb_engine *engine, const char *path, uint32_t mode);

/*
 Copies the path at which consumers of a running engine attach to `buffer`; TOOLB_NOT_FOUND if
 there is none. `needed`, if not NULL, gets the size it takes. Any thread.

 # Safety
 `engine` is a live engine or NULL; `buffer` has room for `capacity` bytes; `needed` may be
 written or is NULL.
 */
toolb_status toolb_engine_bus(const toolb_engine *engine,
                              char *buffer,
                              size_t capacity,
                              size_t *needed);

/*
 Makes a consumer of a running engine in the same process and stores it in `out`, which the caller
 then owns: the engine hands it requests as it does to programs that attach, without another
 process. `options` may be NULL. The engine needs toolb_engine_pool first; TOOLB_BAD_STATE if it
 does not run. There can be one at a time: TOOLB_CANNOT_ATTACH for a second one, as `toolb run`
 starts workers as processes of their own. Any thread but those of the engine.

 It has to be used on another thread than the one in toolb_engine_run. When the engine is stopped
 it gets TOOLB_EVENT_DRAIN, and toolb_consumer_run returns; when the engine has been freed, a
 hang-up. Either may be freed first.

 # Safety
 `engine` is a live engine; `options` points to a toolb_consumer_options or is NULL; `out` may be
 written. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT but for `options`.
 */
toolb_status toolb_engine_consumer(toolb_engine *engine,
                                   const toolb_consumer_options *options,
                                   toolb_consumer **out);

/*
 Attaches to an engine and stores the consumer in `out`, which the caller then owns. `bus` says
 where: "fd:N", a path or "unix:" and a path; NULL: what the environment variable TOOLB_BUS says,
 which `toolb` sets for the programs it starts, or if it is not set, the usual place,
 `$XDG_RUNTIME_DIR/toolb/bus`. `options` may be NULL: all defaults. Blocks until the engine has
 answered; TOOLB_CANNOT_ATTACH if it does not or will not, and toolb_last_error says why. No
 request comes before toolb_consumer_ready.

 # Safety
 `bus` is NUL-terminated or NULL; `options` points to a toolb_consumer_options of the size it says
 or is NULL; `out` may be written or is NULL.
 */
toolb_status toolb_consumer_attach(const char *bus,
                                   const toolb_consumer_options *options,
                                   toolb_consumer **out);

/*
 Tells the engine that the program has started: requests may come.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_consumer_ready(toolb_consumer *consumer);

/*
 Tells the engine, in place of toolb_consumer_ready, that the program will not start, and why.
 `permanent`, if not 0: nor would it if it were tried again. The text is copied.

 # Safety
 `consumer` is a live consumer; `reason` is NUL-terminated. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_fail(toolb_consumer *consumer, const char *reason, int permanent);

/*
 Stores in `out` the one descriptor to watch for reading, level-triggered, for programs with a loop
 of their own: readable when something came after toolb_consumer_arm. It is never to be read, and
 belongs to the consumer.

 # Safety
 `consumer` is a live consumer; `out` may be written. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_fd(toolb_consumer *consumer, int *out);

/*
 Looks for what has come, about `max` events at most (0: 64), and stores in `got`, if not NULL, for
 how many events toolb_consumer_next is to be called. Never blocks. What was written since the last
 poll is made known to the engine when that is due. TOOLB_HANG_UP once TOOLB_EVENT_HANG_UP was
 taken.

 # Safety
 `consumer` is a live consumer or NULL; `got` may be written or is NULL.
 */
toolb_status toolb_consumer_poll(toolb_consumer *consumer, size_t max, size_t *got);

/*
 Takes the next event that toolb_consumer_poll found; its kind is TOOLB_EVENT_NONE if there is none
 left, which may be sooner than poll said. A request that is taken has begun: it is the program's
 to answer, and no other consumer's. The body bytes of the event before count as used up, unless
 toolb_exchange_pause was called.

 # Safety
 `consumer` is a live consumer; `event` points to a toolb_event of the size it says. Each may be
 NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_next(toolb_consumer *consumer, toolb_event *event);

/*
 Announces that the program is about to block on the descriptor of toolb_consumer_fd, and tells the
 engine all that was written. Stores in `may_block` 1 if it may, 0 if it must not: then there is
 something to poll. After blocking, or instead of it, call toolb_consumer_poll.

 # Safety
 `consumer` is a live consumer; `may_block` may be written. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_arm(toolb_consumer *consumer, int *may_block);

/*
 Blocks until there is something to poll, at most `timeout_ms` milliseconds (negative: for ever):
 TOOLB_TIMEOUT if nothing came. A signal that the program handles ends it with TOOLB_OK, too. Tells
 the engine all that was written before.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_consumer_wait(toolb_consumer *consumer, int32_t timeout_ms);

/*
 Tells the engine all that was written. toolb_consumer_poll, _arm and _wait do it in time by
 themselves; call it before doing something else that takes long.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_consumer_flush(toolb_consumer *consumer);

/*
 Asks the engine for no more requests: finish what there is; when all is done,
 TOOLB_EVENT_HANG_UP comes, as after TOOLB_EVENT_DRAIN. Any number of times.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_consumer_leave(toolb_consumer *consumer);

/*
 Leaves the engine and frees the consumer with all its requests. Exchanges that were begun and not
 ended are answered by the engine in its place: 502, or a reset. NULL is allowed. TOOLB_BAD_STATE,
 and nothing is freed, if another thread uses it or from a handler of toolb_consumer_run.

 # Safety
 `consumer` is NULL or was made by this library and not freed before.
 */
toolb_status toolb_consumer_free(toolb_consumer *consumer);

/*
 Sets the status code of the response; 200 when not called. One outside of 200 to 599 makes the
 answer a 500. TOOLB_BAD_STATE after the first write.

 A stream (TOOLB_EVENT_STREAM_OPEN) has neither head nor request: this function, _field, _answer and
 _file answer TOOLB_BAD_STATE for it.

 Of all functions of exchanges: `exchange` is the number that TOOLB_EVENT_REQUEST came with;
 TOOLB_NOT_FOUND if the consumer holds no such exchange, or no longer; TOOLB_GONE if its client has
 gone, of which TOOLB_EVENT_CANCELLED tells.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_status(toolb_consumer *consumer, uint64_t exchange, uint16_t status);

/*
 Adds a field to the response; both texts are copied, and sent in the encoding they have. One that
 HTTP does not allow makes the answer a 500. Without a Content-Length the length is what
 toolb_exchange_answer gives, or the response is sent in chunks. TOOLB_BAD_STATE after the first
 write.

 # Safety
 `consumer` is a live consumer; `name` and `value` are NUL-terminated. Each may be NULL, which is
 answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_exchange_field(toolb_consumer *consumer,
                                  uint64_t exchange,
                                  const char *name,
                                  const char *value);

/*
 Answers at once: sends the head, `len` bytes of body and the end, and lets go of the exchange,
 whatever is returned but TOOLB_NOT_FOUND and TOOLB_BAD_STATE (something was written before). The
 bytes are copied; they may be the request's own. The shortest and fastest way to answer.

 # Safety
 `consumer` is a live consumer; `data` points to `len` bytes. Each may be NULL, which is answered by
 TOOLB_NULL_ARGUMENT unless `len` is 0.
 */
toolb_status toolb_exchange_answer(toolb_consumer *consumer,
                                   uint64_t exchange,
                                   const void *data,
                                   size_t len);

/*
 Answers with a part of an open file: `length` bytes from `offset` on, or TOOLB_REST for all that
 follows. Sends the head, with that Content-Length, and the end, and lets go of the exchange if it
 returns TOOLB_OK; else the exchange is as it was.

 `fd` is borrowed for the call: close it afterwards, whatever becomes of the response. It must be a
 regular file, open for reading (TOOLB_BAD_ARGUMENT if it is not, or shorter). The engine reads it
 while the client takes it; should it become shorter meanwhile, the response is broken off.
 TOOLB_BAD_STATE if something was written before.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_file(toolb_consumer *consumer,
                                 uint64_t exchange,
                                 int fd,
                                 uint64_t offset,
                                 uint64_t length);

/*
 Sends `len` bytes of the response's body, and before the first of them its head; 0 bytes send the
 head alone. On a stream it sends the bytes as they are. All bytes are taken and copied, or none:
 TOOLB_FULL if what was written before has used the window up; then TOOLB_EVENT_WRITABLE tells when
 to try again.

 # Safety
 As for toolb_exchange_answer.
 */
toolb_status toolb_exchange_write(toolb_consumer *consumer,
                                  uint64_t exchange,
                                  const void *data,
                                  size_t len);

/*
 Ends the response; one of which nothing was written has an empty body. Of a stream, what was written
 goes out, and then the connection ends. The exchange goes on, for work after the response, until
 toolb_exchange_done. TOOLB_BAD_STATE if it was ended before.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_end(toolb_consumer *consumer,
                                uint64_t exchange);

/*
 Lets go of an exchange whose response was ended or whose client has gone: the request and its
 slices end here. A response that was not ended is aborted.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_done(toolb_consumer *consumer, uint64_t exchange);

/*
 Gives an exchange up and lets go of it: the engine answers 500, or breaks the response off if its
 head was sent. A stream is reset. One that was ended stays so.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_abort(toolb_consumer *consumer, uint64_t exchange);

/*
 Asks for no more of the request's body, or of a stream, until toolb_exchange_resume; at most a
 window of it (64 KiB by default) is on its way and still comes. Called right after
 TOOLB_EVENT_REQUEST it also keeps a client that waits for "100 Continue" from sending its body.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_pause(toolb_consumer *consumer, uint64_t exchange);

/*
 Goes on with a request's body after toolb_exchange_pause. TOOLB_OK if it was not paused.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_resume(toolb_consumer *consumer, uint64_t exchange);

/*
 Copies the address of the exchange's client, such as "127.0.0.1", to `buffer` and its port to
 `port`, which may be NULL; an empty text and 0 for clients of a Unix socket. `needed`, if not NULL,
 gets the size that the text takes.

 # Safety
 `consumer` is a live consumer or NULL; `buffer` has room for `capacity` bytes; `port` and `needed`
 may be written or are NULL.
 */
toolb_status toolb_exchange_peer(toolb_consumer *consumer,
                                 uint64_t exchange,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *needed,
                                 uint16_t *port);

/*
 Keeps a pointer with the exchange; every further event of it carries it.

 # Safety
 `consumer` is a live consumer or NULL. The pointer is not followed.
 */
toolb_status toolb_exchange_set_user_data(toolb_consumer *consumer,
                                          uint64_t exchange,
                                          void *user_data);

/*
 Adds a route to a consumer, for toolb_consumer_run: methods, patterns, parameters and what is
 answered where none matches are as for toolb_engine_route, so that a handler serves behind the bus
 as it does in the engine. The texts are copied; `user_data` is borrowed until the consumer is freed.
 TOOLB_BAD_ARGUMENT for a method or pattern that cannot be meant: toolb_last_error says why.

 # Safety
 `consumer` is a live consumer; the texts are NUL-terminated; `handler` is a function of that type.
 Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_route(toolb_consumer *consumer,
                                  const char *method,
                                  const char *pattern,
                                  toolb_handler handler,
                                  void *user_data);

/*
 Adds a route as toolb_consumer_route does, with all that a route can have. Its `make_state` is
 called with 0 when toolb_consumer_run begins, and its `drop_state` before that returns, on the same
 thread; there is no loop, and so there are no timers and watches. The struct is copied.

 # Safety
 `consumer` is a live consumer; the texts are NUL-terminated; `route` points to a toolb_route of the
 size it says. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_consumer_add_route(toolb_consumer *consumer,
                                      const char *method,
                                      const char *pattern,
                                      const toolb_route *route);

/*
 Serves by the routes of toolb_consumer_route, one request at a time and with its whole body, until
 the engine drains and all is done, or toolb_consumer_stop was called (TOOLB_OK), or the engine has
 gone (TOOLB_HANG_UP). What no route matches is answered by `handler`, which gets `user_data`; or if
 that is NULL by a 404, 405 or 400, as the engine does it. TOOLB_NULL_ARGUMENT if there is neither.

 Handlers are those of the engine's routes, and see and answer requests in the same way, tokens
 included; but they run on this thread, and may block: then all that this consumer has to say waits,
 answers by token, too. A request has begun when the first part of its body was taken, which is before
 the handler sees it: if this process dies then, the client gets a 502. Calls toolb_consumer_ready. For several threads, run a consumer on each.
 Streams come as events only: TOOLB_BAD_STATE if the consumer was attached with `streams`.

 Tokens that are still out when it returns are of no use any more, as when an engine ends.

 # Safety
 `consumer` is a live consumer, which NULL is answered for by TOOLB_NULL_ARGUMENT; `handler` is a
 function of that type or NULL.
 */
toolb_status toolb_consumer_run(toolb_consumer *consumer,
                                toolb_handler handler,
                                void *user_data);

/*
 Makes toolb_consumer_run return once all that it has begun is answered, by token, too, and the engine
 has the answers; the rest goes to other consumers when this one is freed. It ends a
 toolb_consumer_wait, too. Any thread, any number of times, and from signal handlers.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_consumer_stop(toolb_consumer *consumer);

/*
 Arms one next event of a stream: TOOLB_EVENT_STREAM_DATA when something comes or its client ends
 its side, or TOOLB_EVENT_STREAM_TIMEOUT when neither has come after `timeout_ms` (0: the engine's
 `timeout_stream_idle_ms`; TOOLB_NO_TIMEOUT: never). The last call counts, and no timeout of an
 earlier one comes after it.

 Without it data comes as it comes, under the engine's time, which begins anew with every event and
 with every byte that the client takes. The engine keeps the time, so a program that blocks in
 toolb_consumer_wait is woken by it. TOOLB_GONE: the client has gone. TOOLB_BAD_STATE: it is a
 request, it was ended, or the engine is too old to keep the time.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_want(toolb_consumer *consumer, uint64_t exchange, uint32_t timeout_ms);

/*
 As toolb_exchange_want, but TOOLB_EVENT_STREAM_DATA comes when at least `least` bytes are there that
 came with no event before, all in one `data`, or the client has ended its side: what a protocol with
 lengths wants. Parts of a message, however it was cut on its way, neither come nor put the timeout
 off; after a TOOLB_EVENT_STREAM_TIMEOUT they do, unless the program wants something else.
 TOOLB_BAD_ARGUMENT above the engine's `request_window` (64 KiB by default). Fewer bytes come if there
 is no room for so many beside those that toolb_exchange_pause holds back.

 # Safety
 `consumer` is a live consumer or NULL.
 */
toolb_status toolb_exchange_want_bytes(toolb_consumer *consumer,
                                       uint64_t exchange,
                                       size_t least,
                                       uint32_t timeout_ms);

/*
 Makes an engine with the given settings (NULL: all defaults) and stores it in `out`, which the
 caller then owns; NULL if it fails. TOOLB_BAD_ARGUMENT for a setting that cannot be meant:
 toolb_engine_error, of NULL, and toolb_last_error say which.

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
 Adds a Unix stream socket to listen on. `mode` is that of the socket file, such as 0660; 0 leaves
 it to the umask. A socket that a dead server left behind is replaced; the file is removed when
 the engine ends. The text is copied.

 # Safety
 `engine` is a live engine; `path` is NUL-terminated. Each may be NULL.
 */
toolb_status toolb_engine_listen_unix(toolb_engine *engine, const char *path, uint32_t mode);

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
 Adds a route as toolb_engine_route does, with all that a route can have. The struct is copied.

 # Safety
 `engine` is a live engine; the texts are NUL-terminated; `route` points to a toolb_route of the
 size it says. Each may be NULL.
 */
toolb_status toolb_engine_add_route(toolb_engine *engine,
                                    const char *method,
                                    const char *pattern,
                                    const toolb_route *route);

/*
 Binds the addresses and starts the loops; returns when it accepts connections. The caller then
 calls toolb_engine_run, or goes on and calls toolb_engine_stop later. From then on the engine
 belongs to this process: fork() and daemon() come before.

 # Safety
 `engine` is a live engine or NULL.
 */
toolb_status toolb_engine_start(toolb_engine *engine);

/*
 Starts the engine unless it is started, and serves until toolb_engine_stop is called; then lets
 what was accepted end, at most for the grace time. TOOLB_BAD_STATE from a callback, and in a
 process that was forked after the start.

 # Safety
 `engine` is a live engine or NULL, not to be freed before this returns.
 */
toolb_status toolb_engine_run(toolb_engine *engine);

/*
 Begins the end of a running engine: nobody is accepted any more, what was accepted is finished,
 at most for the grace time, and consumers are told to finish. Then toolb_engine_run returns. An
 engine that was only started comes to its end in the same way; toolb_engine_free cuts off what is
 left of it. Asked before the start, it holds from the start on. Any thread, any number of times,
 and from signal handlers. A process that was forked after the start cannot stop the engine of its
 parent: TOOLB_BAD_STATE.

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
 Copies what the last call for this engine that failed was about, one line that says what to do, to
 `buffer`; empty if none has. With `engine` NULL, as after toolb_engine_new that failed, it is what
 toolb_last_error tells. `needed`, if not NULL, gets the size it takes.

 # Safety
 As for toolb_engine_address.
 */
toolb_status toolb_engine_error(const toolb_engine *engine,
                                char *buffer,
                                size_t capacity,
                                size_t *needed);

/*
 Ends the engine at once if it still runs, and frees it. NULL is allowed. Not while
 toolb_engine_run runs. TOOLB_BAD_STATE, and nothing is freed, for an engine that was started, from
 a callback on a loop. It does nothing in a process that was forked after the start: that one's
 copy goes when it ends, and the engine, with its files, is left to the process that started it.

 # Safety
 `engine` is NULL or was made by toolb_engine_new and not freed before; nobody uses it any more.
 */
toolb_status toolb_engine_free(toolb_engine *engine);

/*
 The method, as sent, such as "GET". Borrows from `request`.

 # Safety
 `request` is one that lives, or NULL.
 */
toolb_slice toolb_request_method(const toolb_request *request);

/*
 The path, percent-decoded, without the query. Borrows from `request`.

 # Safety
 `request` is one that lives, or NULL.
 */
toolb_slice toolb_request_path(const toolb_request *request);

/*
 The query, as sent, without its question mark. Borrows from `request`.

 # Safety
 `request` is one that lives, or NULL.
 */
toolb_slice toolb_request_query(const toolb_request *request);

/*
 The whole body; of a request that a consumer got with an event, the part that came with it.
 Borrows from `request`.

 # Safety
 `request` is one that lives, or NULL.
 */
toolb_slice toolb_request_body(const toolb_request *request);

/*
 Stores in `out` what the route's parameter `name` stands for: for the route "/user/{id}" and
 the path "/user/7", "id" is "7". TOOLB_NOT_FOUND if the route has no such parameter, and for
 requests that came as events, which have no routes.

 # Safety
 `request` is one that lives; `name` is NUL-terminated; `out` may be written. Each may be NULL,
 which is answered by TOOLB_NULL_ARGUMENT.
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
 How many fields the request has.

 # Safety
 `request` is one that lives, or NULL.
 */
size_t toolb_request_field_count(const toolb_request *request);

/*
 Stores in `name` and `value`, each of which may be NULL, the field number `index`, counted from 0 in
 the order they came; one that was sent several times is there as often. Names are as sent, over the
 bus in lower case. TOOLB_NOT_FOUND if there are not so many. Both borrow from `request`.

 # Safety
 `request` is one that lives, or NULL, which is answered by TOOLB_NULL_ARGUMENT; `name` and `value`
 may be written or are NULL.
 */
toolb_status toolb_request_field_at(const toolb_request *request,
                                    size_t index,
                                    toolb_slice *name,
                                    toolb_slice *value);

/*
 The address of the client, such as "127.0.0.1" or "::1", and in `port`, if not NULL, its port. Empty
 and 0 for clients of a Unix socket. Borrows from `request`.

 # Safety
 `request` is one that lives, or NULL; `port` may be written or is NULL.
 */
toolb_slice toolb_request_peer(const toolb_request *request,
                               uint16_t *port);

/*
 What the `make_state` of the request's route made for this loop, or for this consumer; NULL if there
 is none, and for requests that came as events.

 # Safety
 `request` is one that lives, or NULL.
 */
void *toolb_request_state(const toolb_request *request);

/*
 Sets the status code of the response; 200 when not called. One outside of 200 to 599 makes the
 answer a 500.

 # Safety
 `response` is what the handler was called with, during that call, or NULL.
 */
toolb_status toolb_response_status(toolb_response *response, uint16_t status);

/*
 Adds a field to the response; both texts are copied, and sent in the encoding they have. One that
 HTTP does not allow makes the answer a 500.

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
toolb_status toolb_response_write(toolb_response *response, const void *data, size_t len);

/*
 Takes back all that was set and written: a 200 without fields and body, to begin anew.

 # Safety
 `response` is what the handler was called with, during that call, or NULL.
 */
toolb_status toolb_response_clear(toolb_response *response);

/*
 Copies what this thread's last failure was about, one line that says what to do, to `buffer`:
 each call that returns another status than TOOLB_OK says it anew, but for toolb_engine_stop, this
 one and toolb_engine_error. Empty if nothing has failed; a call that succeeds leaves it as it is.
 `needed`, if not NULL, gets the size it takes. Any thread, each with a text of its own.

 # Safety
 `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
 */
toolb_status toolb_last_error(char *buffer, size_t capacity, size_t *needed);

/*
 Writes a line to the log of this process, as the library writes its own errors: to standard error,
 "toolb error: " and `text`, without ever waiting for whoever reads it. What would not fit one line is
 escaped. Any thread.

 # Safety
 `text` is NUL-terminated or NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_log_error(const char *text);

/*
 Has `call` called once on this loop after `after_ms` milliseconds, and never before. Timers fire
 in the order of their deadlines; one that still waits when the loop ends is not called. `id`, if
 not NULL, gets what toolb_timer_cancel wants, which is never 0.

 `user` is given away: `drop`, if not NULL, is called for it exactly once, on this thread, when
 `call` will not be called any more: it has been, the timer was cancelled, the loop ended, or this
 function did not return TOOLB_OK.

 Only in a callback on a loop, such as a handler or the function of a timer; TOOLB_WRONG_LOOP
 elsewhere.

 # Safety
 `call` and `drop` are functions of that type or NULL; `id` may be written or is NULL.
 */
toolb_status toolb_timer_start(uint64_t after_ms,
                               toolb_callback call,
                               void *user,
                               toolb_callback drop,
                               uint64_t *id);

/*
 Cancels a timer of this loop. TOOLB_NOT_FOUND if it has fired or was cancelled before. Only in a
 callback on the loop that it was started on; elsewhere TOOLB_WRONG_LOOP, and on another loop `id`
 means nothing or something else.
 */
toolb_status toolb_timer_cancel(uint64_t id);

/*
 Has `call` called on this loop whenever `fd` is ready for `events` (TOOLB_WATCH_READ,
 TOOLB_WATCH_WRITE or both), until toolb_unwatch. Readiness is a state, not a change: what is left
 unread is reported again. `id`, if not NULL, gets what toolb_unwatch wants, which is never 0.

 The loop watches a duplicate of the descriptor: `fd` stays yours and may be closed at any time,
 but what is behind it stays open until toolb_unwatch or the end of the loop. TOOLB_BAD_ARGUMENT
 if `fd` is not open or cannot be watched (a plain file), or `events` are none of these;
 TOOLB_NO_DESCRIPTOR if the process has no descriptor left.

 `user` is given away: `drop`, if not NULL, is called for it exactly once, on this thread, when
 `call` will not be called any more: it was unwatched, the loop ended, or this function did not
 return TOOLB_OK. Only in a callback on a loop.

 # Safety
 `call` and `drop` are functions of that type or NULL; `id` may be written or is NULL.
 */
toolb_status toolb_watch(int fd,
                         uint32_t events,
                         toolb_watch_callback call,
                         void *user,
                         toolb_callback drop,
                         uint64_t *id);

/*
 Ends a watch of this loop; its function is not called again. TOOLB_NOT_FOUND if it has been ended
 before. Only in a callback on the loop that it was begun on, be it its own.
 */
toolb_status toolb_unwatch(uint64_t id);

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
 Fills `out` with what the engine has counted; zeros before it runs, the last numbers after its
 end. Any thread.

 # Safety
 `engine` is a live engine or NULL; `out` points to a toolb_stats of the size it says, or is NULL.
 */
toolb_status toolb_engine_stats(const toolb_engine *engine, toolb_stats *out);

/*
 A line of text for a status; never NULL, never freed. Any thread, any time.
 */
const char *toolb_status_text(uint32_t status);

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
 Stores in `out` 1 if nothing more comes from the peer, so that what toolb_stream_peek shows is all,
 or else 0. Callbacks of the stream's loop only.

 # Safety
 `out` may be written or is NULL.
 */
toolb_status toolb_stream_ended(toolb_stream stream, int *out);

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
 Copies the peer's address, such as `127.0.0.1:50000` or `[::1]:50000`, or "unix:" on a Unix
 socket, to `buffer`. `needed`, if not NULL, gets the size it takes; 64 is enough. Callbacks of the
 stream's loop only.

 # Safety
 `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
 */
toolb_status toolb_stream_peer(toolb_stream stream, char *buffer, size_t capacity, size_t *needed);

/*
 Gives the right to answer away, with the status, the fields and the body that were written so
 far, and stores it in `out`; the handler then returns TOOLB_LATER. The caller owns the token.
 What is written to `response` afterwards is lost. TOOLB_BAD_STATE if there has been a token for
 this request before.

 # Safety
 `response` is what the handler was called with, during that call; `out` may be written. Each may
 be NULL, which is answered by TOOLB_NULL_ARGUMENT.
 */
toolb_status toolb_response_later(toolb_response *response, toolb_token **out);

/*
 Sets the status code of the answer; 200 when not called here or in the handler. TOOLB_BAD_STATE
 after the first toolb_token_write. Any thread.

 # Safety
 `token` is a token that has not been ended, or NULL.
 */
toolb_status toolb_token_status(toolb_token *token, uint16_t status);

/*
 Adds a field to the answer; both texts are copied. One that HTTP does not allow makes the answer
 a 500. TOOLB_BAD_STATE after the first toolb_token_write. Any thread.

 # Safety
 `token` is a token that has not been ended; the texts are NUL-terminated. Each may be NULL.
 */
toolb_status toolb_token_field(toolb_token *token, const char *name, const char *value);

/*
 Sends the head of the answer, if it has not been sent, and `len` bytes of its body; they are
 copied. Without a Content-Length among the fields the body is sent in chunks.

 Of one answer at most the option `response_window` (of a consumer's answer: 128 KiB, besides what
 is on its way to the engine) may wait for the client to take it. What does not fit is refused as a
 whole by TOOLB_FULL; then wait by toolb_token_wait, or be called by toolb_token_on_writable, and
 write again. Any thread.

 # Safety
 `token` is a token that has not been ended, or NULL; `data` points to `len` bytes, or is NULL.
 */
toolb_status toolb_token_write(toolb_token *token, const void *data, size_t len);

/*
 Completes the answer. Consumes `token`, also where it returns TOOLB_GONE. After TOOLB_OK the
 function of toolb_token_on_cancel is not called; after TOOLB_GONE it has been called or is being
 called now. Any thread.

 # Safety
 `token` is a token that has not been ended, or NULL.
 */
toolb_status toolb_token_end(toolb_token *token);

/*
 Sends `len` bytes, which are copied, as the rest of the body or all of it, and completes the
 answer, whatever the window. Consumes `token` unless it returns TOOLB_NULL_ARGUMENT; as for
 toolb_token_end otherwise. Any thread.

 # Safety
 `token` is a token that has not been ended, or NULL; `data` points to `len` bytes, or is NULL.
 */
toolb_status toolb_token_answer(toolb_token *token, const void *data, size_t len);

/*
 Gives up: the client gets a 500, or a reset connection if the head has been sent. Consumes
 `token`; as for toolb_token_end otherwise. Any thread.

 # Safety
 `token` is a token that has not been ended, or NULL.
 */
toolb_status toolb_token_abort(toolb_token *token);

/*
 Has `call` called once, on the loop of the request or by the toolb_consumer_run that it came to, when
 nobody waits for the answer any more. It replaces one that was set before. TOOLB_GONE, without a
 call, if that is so already. Any thread; set in the handler nothing can be missed.

 `user` is given away: `drop`, if not NULL, is called for it exactly once, on whichever thread,
 when `call` will not be called any more: it has been, it was replaced, the token was ended, or
 this function did not return TOOLB_OK.

 # Safety
 `token` is a token that has not been ended, or NULL; `call` and `drop` are functions of that type
 or NULL, and `user` may be used on that thread.
 */
toolb_status toolb_token_on_cancel(toolb_token *token,
                                   toolb_callback call,
                                   void *user,
                                   toolb_callback drop);

/*
 Has `call` called on the same thread when there is room again, once after each write that was
 answered by TOOLB_FULL. It replaces one that was set before. It may still be running when
 another thread ends the token. `user` and `drop` as for toolb_token_on_cancel. Any thread.

 # Safety
 As for toolb_token_on_cancel.
 */
toolb_status toolb_token_on_writable(toolb_token *token,
                                     toolb_callback call,
                                     void *user,
                                     toolb_callback drop);

/*
 Waits until what was refused by TOOLB_FULL would be taken; at most `timeout_ms` milliseconds, -1
 for as long as it takes. TOOLB_TIMEOUT if the time is over. TOOLB_BAD_STATE in a callback on a
 loop and in what toolb_consumer_run calls, which would wait for themselves. Any other thread.

 # Safety
 `token` is a token that nobody ends meanwhile, or NULL.
 */
toolb_status toolb_token_wait(toolb_token *token, int32_t timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TOOLB_H */
