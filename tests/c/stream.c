/* A stream service from C: what its callbacks are told and may do, and what misuse answers. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "expect.h"

enum { LOOPS = 2, LIMIT = 4096 };

/* One for each loop: no locks, as only its thread uses it. */
struct state {
    uint32_t index;
    pthread_t thread;
    int busy;
    toolb_stream last_closed;
};

static atomic_int inits, exits, accepted, closed, drained;
static atomic_int reasons[8];
static atomic_ullong of_loop[LOOPS];
static uint16_t port;

static struct state *enter(void *data)
{
    struct state *state = data;
    REQUIRE(pthread_equal(state->thread, pthread_self()));
    REQUIRE(!state->busy);
    state->busy = 1;
    return state;
}

static void *on_init(void *user_data, uint32_t index)
{
    struct state *state = calloc(1, sizeof *state);
    REQUIRE(state != NULL && user_data == &port && index < LOOPS);
    state->index = index;
    state->thread = pthread_self();
    inits++;
    return state;
}

static void on_accept(void *data, toolb_stream stream)
{
    struct state *state = enter(data);
    char peer[64];
    REQUIRE(stream != 0 && toolb_stream_user(stream) == NULL);
    EXPECT(toolb_stream_peer(stream, peer, sizeof peer, NULL), TOOLB_OK);
    REQUIRE(strncmp(peer, "127.0.0.1:", 10) == 0);
    EXPECT(toolb_stream_set_user(stream, state), TOOLB_OK);
    EXPECT(toolb_stream_want_bytes(stream, 4, TOOLB_NO_TIMEOUT), TOOLB_OK);
    of_loop[state->index] = stream;
    accepted++;
    state->busy = 0;
}

/* Every function, given what it must refuse. */
static void misuse(struct state *state, toolb_stream stream)
{
    static char large[LIMIT + 1];
    const toolb_stream gone[] = {state->last_closed, (toolb_stream)state->index << 56,
                                 stream ^ (toolb_stream)1 << 40};
    toolb_stream other = of_loop[1 - state->index];
    toolb_slice slice;
    toolb_stream new;
    size_t size;
    char byte[1];
    size_t i;
    int ended;

    for (i = 0; i < sizeof gone / sizeof gone[0] + 1; i++) {
        toolb_status status = i == 0 ? TOOLB_WRONG_LOOP : TOOLB_GONE;
        toolb_stream wrong = i == 0 ? other : gone[i - 1];
        EXPECT(toolb_stream_want(wrong, 0), status);
        EXPECT(toolb_stream_want_bytes(wrong, 1, 0), status);
        EXPECT(toolb_stream_recv(wrong, byte, 1, &size), status);
        EXPECT(toolb_stream_peek(wrong, &slice), status);
        REQUIRE(slice.data != NULL && slice.len == 0);
        EXPECT(toolb_stream_consume(wrong, 0), status);
        EXPECT(toolb_stream_send(wrong, "x", 1), status);
        EXPECT(toolb_stream_unsent(wrong, &size), status);
        EXPECT(toolb_stream_ended(wrong, &ended), status);
        EXPECT(toolb_stream_close(wrong), status);
        EXPECT(toolb_stream_abort(wrong), status);
        EXPECT(toolb_stream_set_user(wrong, byte), status);
        EXPECT(toolb_stream_peer(wrong, byte, 1, NULL), status);
        REQUIRE(toolb_stream_user(wrong) == NULL);
    }
    EXPECT(toolb_stream_recv(stream, NULL, 1, &size), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_recv(stream, byte, 1, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_recv(stream, NULL, 0, &size), TOOLB_OK);
    EXPECT(toolb_stream_peek(stream, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_consume(stream, LIMIT + 1), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_stream_want_bytes(stream, LIMIT + 1, 0), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_stream_send(stream, NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_send(stream, NULL, 0), TOOLB_OK);
    EXPECT(toolb_stream_send(stream, large, sizeof large), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_stream_unsent(stream, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_ended(stream, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_ended(stream, &ended), TOOLB_OK);
    REQUIRE(!ended);
    EXPECT(toolb_stream_peer(stream, byte, 1, &size), TOOLB_BUFFER_TOO_SMALL);
    REQUIRE(size > 10 && size < 64);
    EXPECT(toolb_stream_connect(NULL, 1, 0, NULL, &new), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_connect("::1", 1, 0, NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_stream_connect("localhost", 1, 0, NULL, &new), TOOLB_BAD_ARGUMENT);
    REQUIRE(new == 0);

    /* Room for LIMIT bytes, and then for nothing. */
    EXPECT(toolb_stream_send(stream, large, LIMIT), TOOLB_OK);
    EXPECT(toolb_stream_unsent(stream, &size), TOOLB_OK);
    REQUIRE(size == LIMIT);
    EXPECT(toolb_stream_send(stream, large, 1), TOOLB_FULL);
}

/* Orders of four bytes. */
static void on_receive(void *data, toolb_stream stream)
{
    struct state *state = enter(data);
    toolb_slice order;
    char copy[4];
    size_t got;
    toolb_stream new;
    REQUIRE(toolb_stream_user(stream) == state);
    EXPECT(toolb_stream_peek(stream, &order), TOOLB_OK);
    if (order.len < 4) {
        state->busy = 0;
        return;
    }
    if (memcmp(order.data, "echo", 4) == 0) {
        EXPECT(toolb_stream_send(stream, order.data, 4), TOOLB_OK);
    } else if (memcmp(order.data, "misu", 4) == 0) {
        misuse(state, stream);
    } else if (memcmp(order.data, "quit", 4) == 0) {
        EXPECT(toolb_stream_send(stream, "bye", 3), TOOLB_OK);
        EXPECT(toolb_stream_close(stream), TOOLB_OK);
        EXPECT(toolb_stream_close(stream), TOOLB_OK);
        EXPECT(toolb_stream_send(stream, "x", 1), TOOLB_GONE);
    } else if (memcmp(order.data, "abrt", 4) == 0) {
        EXPECT(toolb_stream_abort(stream), TOOLB_OK);
    } else if (memcmp(order.data, "conn", 4) == 0) {
        EXPECT(toolb_stream_connect("127.0.0.1", port, 0, &port, &new), TOOLB_OK);
        EXPECT(toolb_stream_send(new, "quit", 4), TOOLB_OK);
        REQUIRE(new >> 56 == state->index && toolb_stream_user(new) == &port);
    } else if (memcmp(order.data, "fail", 4) == 0) {
        EXPECT(toolb_stream_connect("unix:/nonexistent/x", 0, 0, NULL, &new), TOOLB_OK);
        EXPECT(toolb_stream_set_user(new, (void *)(uintptr_t)stream), TOOLB_OK);
    }
    /* What was shown stays where it was, whatever happened since. */
    EXPECT(toolb_stream_recv(stream, copy, sizeof copy, &got), TOOLB_OK);
    REQUIRE(got == 4 && memcmp(copy, order.data, 4) == 0);
    (void)toolb_stream_want_bytes(stream, 4, TOOLB_NO_TIMEOUT);
    state->busy = 0;
}

static void on_writable(void *data, toolb_stream stream)
{
    struct state *state = enter(data);
    EXPECT(toolb_stream_send(stream, "room", 4), TOOLB_OK);
    state->busy = 0;
}

static void on_connect(void *data, toolb_stream stream)
{
    struct state *state = enter(data);
    REQUIRE(toolb_stream_user(stream) == &port);
    /* From here on it is served like the others. */
    EXPECT(toolb_stream_set_user(stream, state), TOOLB_OK);
    accepted++;
    state->busy = 0;
}

static void on_connect_fail(void *data, toolb_stream stream, int error)
{
    struct state *state = enter(data);
    toolb_stream asker = (toolb_stream)(uintptr_t)toolb_stream_user(stream);
    EXPECT(toolb_stream_send(asker, error == ENOENT ? "fail" : "what", 4), TOOLB_OK);
    state->busy = 0;
}

static void on_close(void *data, toolb_stream stream, toolb_reason reason)
{
    struct state *state = enter(data);
    REQUIRE(toolb_stream_user(stream) == state);
    EXPECT(toolb_stream_send(stream, "x", 1), TOOLB_GONE);
    state->last_closed = stream;
    reasons[reason]++;
    closed++;
    state->busy = 0;
}

static void on_drain(void *data, uint32_t index)
{
    struct state *state = enter(data);
    REQUIRE(state->index == index);
    drained++;
    state->busy = 0;
}

static void on_exit(void *data, uint32_t index)
{
    struct state *state = enter(data);
    REQUIRE(state->index == index);
    exits++;
    free(state);
}

static void *run(void *engine)
{
    EXPECT(toolb_engine_run(engine), TOOLB_OK);
    return NULL;
}

static int dial(void)
{
    struct sockaddr_in address;
    struct timeval watchdog = {60, 0};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &watchdog, sizeof watchdog) == 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    return client;
}

static void say(int client, const char *order)
{
    REQUIRE(send(client, order, strlen(order), MSG_NOSIGNAL) == (ssize_t)strlen(order));
}

/* Reads exactly `count` bytes; the last of them are `expected`. */
static void hear(int client, size_t count, const char *expected)
{
    char bytes[LIMIT + 16];
    size_t len = strlen(expected);
    REQUIRE(count <= sizeof bytes);
    REQUIRE(recv(client, bytes, count, MSG_WAITALL) == (ssize_t)count);
    REQUIRE(memcmp(bytes + count - len, expected, len) == 0);
}

int main(void)
{
    toolb_options options = {.struct_size = sizeof options, .loops = LOOPS};
    toolb_service service = {
        .struct_size = sizeof service,
        .on_init = on_init,
        .on_accept = on_accept,
        .on_receive = on_receive,
        .on_close = on_close,
        .on_connect = on_connect,
        .on_connect_fail = on_connect_fail,
        .on_exit = on_exit,
        .on_writable = on_writable,
        .on_drain = on_drain,
        .receive_limit = LIMIT,
        .send_limit = LIMIT,
    };
    toolb_stats stats = {.struct_size = sizeof stats};
    toolb_engine *engine;
    toolb_slice slice;
    toolb_stream stream;
    pthread_t thread;
    char text[256];
    char byte;
    size_t size;
    int client, stays, i;

    options.timeout_graceful_shutdown_ms = 50;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);
    EXPECT(toolb_engine_service(NULL, "127.0.0.1", 0, &service, &port), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_service(engine, "127.0.0.1", 0, NULL, &port), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_service(engine, "\xff", 0, &service, &port), TOOLB_NOT_UTF8);
    EXPECT(toolb_engine_service_unix(NULL, "x", 0, &service, &port), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_service_unix(engine, NULL, 0, &service, &port), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_service_unix(engine, "x", 0, NULL, &port), TOOLB_NULL_ARGUMENT);
    service.struct_size = sizeof service - 8;
    EXPECT(toolb_engine_service(engine, "127.0.0.1", 0, &service, &port), TOOLB_BAD_STRUCT_SIZE);
    service.struct_size = sizeof service;
    EXPECT(toolb_engine_service(engine, "127.0.0.1", 0, &service, &port), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_service(engine, "127.0.0.1", 0, &service, &port), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strncmp(text, "tcp://127.0.0.1:", 16) == 0);
    port = (uint16_t)atoi(strrchr(text, ':') + 1);
    REQUIRE(pthread_create(&thread, NULL, run, engine) == 0);

    /* This thread is no loop. */
    EXPECT(toolb_stream_want(1, 0), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_want_bytes(1, 1, 0), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_recv(1, &byte, 1, &size), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_peek(1, &slice), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_consume(1, 0), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_send(1, "x", 1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_unsent(1, &size), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_ended(1, &i), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_close(1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_abort(1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_connect("127.0.0.1", port, 0, NULL, &stream), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_set_user(1, NULL), TOOLB_WRONG_LOOP);
    EXPECT(toolb_stream_peer(1, text, sizeof text, NULL), TOOLB_WRONG_LOOP);
    REQUIRE(toolb_stream_user(1) == NULL);

    /* Until both loops have had a stream, and closed it. */
    while (of_loop[0] == 0 || of_loop[1] == 0) {
        client = dial();
        say(client, "echoechoec");
        hear(client, 8, "echoecho");
        say(client, "hoquit");
        hear(client, 7, "echobye");
        REQUIRE(recv(client, &byte, 1, 0) == 0);
        close(client);
    }
    for (i = 0; i < 20; i++) {
        client = dial();
        say(client, "misu");
        hear(client, LIMIT + 4, "room");
        say(client, "connfailecho");
        /* The failure is told in the next turn, the echo at once. */
        hear(client, 8, "");
        say(client, "abrt");
        REQUIRE(recv(client, &byte, 1, 0) < 0 && errno == ECONNRESET);
        close(client);
    }
    stays = dial();
    say(stays, "echo");
    hear(stays, 4, "echo");
    /* Outgoing connections may take their time. */
    do {
        EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    } while (stats.streams_connected < 20);
    REQUIRE(stats.streams_active >= 1 && stats.streams_accepted > 20);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    REQUIRE(pthread_join(thread, NULL) == 0);
    close(stays);
    REQUIRE(inits == LOOPS && drained == LOOPS && exits == LOOPS);
    REQUIRE(closed == accepted);
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    REQUIRE(stats.streams_active == 0);
    REQUIRE(reasons[TOOLB_REASON_ABORTED] == 20 && reasons[TOOLB_REASON_STOPPING] >= 1);
    toolb_engine_free(engine);
    return 0;
}
