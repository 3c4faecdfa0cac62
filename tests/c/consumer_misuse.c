/*
 * Every entry point of consumers, used wrongly: a status comes back, nothing crashes.
 *
 * Attaches by TOOLB_BUS, and is its own client at the engine's Unix socket.
 * Usage: consumer_misuse SOCKET DONE. Makes the file DONE when all was as expected.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "expect.h"

static const char *address, *program;

static int ask(const char *text)
{
    struct sockaddr_un to;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    strncpy(to.sun_path, address, sizeof to.sun_path - 1);
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    REQUIRE(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

/* The status code of the answer. */
static int answer(int fd)
{
    static char head[65536];
    size_t have = 0;
    ssize_t got;
    while ((got = read(fd, head + have, sizeof head - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    head[have] = '\0';
    return have > 12 ? atoi(head + 9) : 0;
}

static toolb_event next(toolb_consumer *consumer, uint32_t kind)
{
    toolb_event event;
    for (;;) {
        memset(&event, 0, sizeof event);
        event.struct_size = sizeof event;
        EXPECT(toolb_consumer_next(consumer, &event), TOOLB_OK);
        if (event.kind == kind)
            return event;
        REQUIRE(event.kind == TOOLB_EVENT_NONE);
        EXPECT(toolb_consumer_wait(consumer, -1), TOOLB_OK);
        EXPECT(toolb_consumer_poll(consumer, 0, NULL), TOOLB_OK);
    }
}

static int handler(void *data, const toolb_request *request, toolb_response *response);

static void without_a_consumer(void)
{
    char text[256];
    size_t needed = 0;
    int number;
    toolb_consumer *consumer = NULL;
    toolb_consumer_options options;
    toolb_event event;

    EXPECT(toolb_last_error(text, sizeof text, &needed), TOOLB_OK);
    REQUIRE(text[0] == '\0' && needed == 1);
    EXPECT(toolb_consumer_attach("fd:3", NULL, NULL), TOOLB_NULL_ARGUMENT);
    memset(&options, 0, sizeof options);
    EXPECT(toolb_consumer_attach("fd:3", &options, &consumer), TOOLB_BAD_STRUCT_SIZE);
    options.struct_size = sizeof options;
    options.slots = 65536;
    EXPECT(toolb_consumer_attach("fd:3", &options, &consumer), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strstr(text, "slots is 65536") != NULL);
    EXPECT(toolb_last_error(text, 4, &needed), TOOLB_BUFFER_TOO_SMALL);
    REQUIRE(needed == strlen(text) + 1);
    options.slots = 0;
    options.name = "\xff";
    EXPECT(toolb_consumer_attach("fd:3", &options, &consumer), TOOLB_NOT_UTF8);
    options.name = NULL;
    EXPECT(toolb_consumer_attach("/\xff", &options, &consumer), TOOLB_CANNOT_ATTACH);
    options.attach_patience_ms = 30;
    EXPECT(toolb_consumer_attach("/nowhere/bus", &options, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_consumer_attach("", &options, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_consumer_attach("fd:x", &options, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_consumer_attach("fd:-1", &options, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_consumer_attach("fd:1", &options, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strstr(text, "fd:1") != NULL && consumer == NULL);

    event.struct_size = sizeof event;
    EXPECT(toolb_consumer_ready(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fail(NULL, "why", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fd(NULL, &number), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_poll(NULL, 1, &needed), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_next(NULL, &event), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_arm(NULL, &number), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_wait(NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_flush(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_run(NULL, NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_run(NULL, handler, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_route(NULL, "GET", "/", handler, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_add_route(NULL, "GET", "/", NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_leave(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_stop(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_free(NULL), TOOLB_OK);
    EXPECT(toolb_exchange_status(NULL, 1, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_field(NULL, 1, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_answer(NULL, 1, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_write(NULL, 1, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_file(NULL, 1, 0, 0, TOOLB_REST), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_end(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_done(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_abort(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_pause(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_resume(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_set_user_data(NULL, 1, NULL), TOOLB_NULL_ARGUMENT);
}

static void with_a_wrong_exchange(toolb_consumer *consumer, uint64_t x)
{
    EXPECT(toolb_exchange_status(consumer, x, 200), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_field(consumer, x, "a", "b"), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_file(consumer, x, 0, 0, TOOLB_REST), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_abort(consumer, x), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_pause(consumer, x), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_resume(consumer, x), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_set_user_data(consumer, x, NULL), TOOLB_NOT_FOUND);
}

static void *from_elsewhere(void *data)
{
    toolb_consumer *consumer = data;
    char text[256];
    size_t got;
    /* The other thread is in toolb_consumer_run. */
    EXPECT(toolb_consumer_poll(consumer, 1, &got), TOOLB_BAD_STATE);
    EXPECT(toolb_consumer_wait(consumer, 0), TOOLB_BAD_STATE);
    EXPECT(toolb_consumer_free(consumer), TOOLB_BAD_STATE);
    EXPECT(toolb_consumer_route(consumer, "GET", "/", handler, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_write(consumer, 65537, "a", 1), TOOLB_BAD_STATE);
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strstr(text, "another thread") != NULL);
    EXPECT(toolb_consumer_stop(consumer), TOOLB_OK);
    return NULL;
}

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_consumer *consumer = data;
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, from_elsewhere, consumer) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    EXPECT(toolb_consumer_free(consumer), TOOLB_BAD_STATE);
    EXPECT(toolb_consumer_run(consumer, handler, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_timer_start(0, NULL, NULL, NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_timer_cancel(1), TOOLB_WRONG_LOOP);
    REQUIRE(toolb_request_path(request).len == 4);
    EXPECT(toolb_response_write(response, "x", 1), TOOLB_OK);
    return TOOLB_DONE;
}

static void with_exchanges(toolb_consumer *consumer)
{
    toolb_event event, small;
    const toolb_request *request;
    toolb_slice slice;
    int client, mark;
    uint64_t x;

    client = ask("GET /one?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    event = next(consumer, TOOLB_EVENT_REQUEST);
    x = event.exchange;
    request = event.request;
    REQUIRE(x != 0 && request != NULL && (event.flags & TOOLB_EVENT_END) != 0);
    REQUIRE(event.data.len == 0 && event.data.data != NULL && event.user_data == NULL);
    memset(&small, 0, sizeof small);
    EXPECT(toolb_consumer_next(consumer, &small), TOOLB_BAD_STRUCT_SIZE);
    EXPECT(toolb_consumer_next(consumer, NULL), TOOLB_NULL_ARGUMENT);
    with_a_wrong_exchange(consumer, 0);
    with_a_wrong_exchange(consumer, 1);
    with_a_wrong_exchange(consumer, x + 1);
    with_a_wrong_exchange(consumer, x + 65536);
    with_a_wrong_exchange(consumer, UINT64_MAX);
    REQUIRE(toolb_request_path(request).len == 4 && toolb_request_query(request).len == 1);
    EXPECT(toolb_request_field(request, "HOST", &slice), TOOLB_OK);
    EXPECT(toolb_request_field(request, "none", &slice), TOOLB_NOT_FOUND);
    EXPECT(toolb_request_param(request, "id", &slice), TOOLB_NOT_FOUND);
    REQUIRE(toolb_request_field_count(request) == 2);
    EXPECT(toolb_request_field_at(request, 1, &slice, NULL), TOOLB_OK);
    REQUIRE(slice.len == 10 && memcmp(slice.data, "connection", 10) == 0);
    EXPECT(toolb_request_field_at(request, 2, &slice, NULL), TOOLB_NOT_FOUND);
    EXPECT(toolb_exchange_field(consumer, x, NULL, "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_field(consumer, x, "a", NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_field(consumer, x, "a", "\xff"), TOOLB_OK);
    EXPECT(toolb_exchange_write(consumer, x, NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_answer(consumer, x, NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_file(consumer, x, -1, 0, TOOLB_REST), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_exchange_file(consumer, x, 1000000, 0, TOOLB_REST), TOOLB_BAD_ARGUMENT);
    {
        int folder = open(".", O_RDONLY), file = open(program, O_RDONLY), ends[2];
        REQUIRE(folder >= 0 && file >= 0 && pipe(ends) == 0);
        EXPECT(toolb_exchange_file(consumer, x, folder, 0, TOOLB_REST), TOOLB_BAD_ARGUMENT);
        EXPECT(toolb_exchange_file(consumer, x, ends[0], 0, TOOLB_REST), TOOLB_BAD_ARGUMENT);
        EXPECT(toolb_exchange_file(consumer, x, file, UINT64_MAX, 1), TOOLB_BAD_ARGUMENT);
        EXPECT(toolb_exchange_file(consumer, x, file, 1, UINT64_MAX - 1), TOOLB_BAD_ARGUMENT);
        close(folder);
        close(file);
        close(ends[0]);
        close(ends[1]);
    }
    EXPECT(toolb_exchange_resume(consumer, x), TOOLB_OK);
    EXPECT(toolb_exchange_write(consumer, x, "ab", 2), TOOLB_OK);
    EXPECT(toolb_exchange_status(consumer, x, 201), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_file(consumer, x, 0, 0, TOOLB_REST), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_field(consumer, x, "a", "b"), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_OK);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_BAD_STATE);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_BAD_STATE);
    REQUIRE(toolb_request_path(request).len == 4);
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);
    /* The request ended with its exchange. */
    REQUIRE(toolb_request_path(request).len == 0);
    REQUIRE(toolb_request_field_count(request) == 0 && toolb_request_peer(request, NULL).len == 0);
    EXPECT(toolb_request_field_at(request, 0, NULL, NULL), TOOLB_NOT_FOUND);
    with_a_wrong_exchange(consumer, x);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 200);

    /* A field that HTTP does not allow, and a status it does not know. */
    client = ask("GET /two HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    EXPECT(toolb_exchange_field(consumer, x, "a b", "c"), TOOLB_OK);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_OK);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 500);
    client = ask("GET /two HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    EXPECT(toolb_exchange_status(consumer, x, 99), TOOLB_OK);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_OK);
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 500);

    /* More fields than a head may have. */
    client = ask("GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    for (int i = 0; i < 70; i++) {
        char value[1024];
        memset(value, 'v', sizeof value - 1);
        value[sizeof value - 1] = '\0';
        EXPECT(toolb_exchange_field(consumer, x, "x", value), TOOLB_OK);
    }
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_BAD_ARGUMENT);
    with_a_wrong_exchange(consumer, x);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 500);

    /* Nothing said at all: the engine answers. */
    client = ask("GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);
    EXPECT(toolb_consumer_flush(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 500);

    /* A client that has gone. */
    client = ask("GET /gone HTTP/1.1\r\nHost: h\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    EXPECT(toolb_exchange_set_user_data(consumer, x, &mark), TOOLB_OK);
    close(client);
    event = next(consumer, TOOLB_EVENT_CANCELLED);
    REQUIRE(event.exchange == x && event.user_data == &mark);
    EXPECT(toolb_exchange_write(consumer, x, "a", 1), TOOLB_GONE);
    EXPECT(toolb_exchange_status(consumer, x, 200), TOOLB_GONE);
    EXPECT(toolb_exchange_end(consumer, x), TOOLB_GONE);
    EXPECT(toolb_exchange_pause(consumer, x), TOOLB_GONE);
    EXPECT(toolb_exchange_answer(consumer, x, "a", 1), TOOLB_GONE);
    with_a_wrong_exchange(consumer, x);

    /* The window: all or nothing, and word when there is room. */
    client = ask("GET /full HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    x = next(consumer, TOOLB_EVENT_REQUEST).exchange;
    {
        static char block[100000];
        size_t taken = 0;
        toolb_status status;
        while ((status = toolb_exchange_write(consumer, x, block, sizeof block)) == TOOLB_OK)
            taken++;
        REQUIRE(status == TOOLB_FULL && taken < 100);
        EXPECT(toolb_exchange_write(consumer, x, block, 1), TOOLB_FULL);
        /* The end needs no room. */
        EXPECT(toolb_exchange_end(consumer, x), TOOLB_OK);
        EXPECT(toolb_exchange_done(consumer, x), TOOLB_OK);
        close(client);
    }

    EXPECT(toolb_consumer_poll(consumer, 1, NULL), TOOLB_OK);
    EXPECT(toolb_consumer_run(consumer, NULL, NULL), TOOLB_NULL_ARGUMENT);
}

/* Without TOOLB_BUS the bus is looked for where `toolb serve` has it. */
static void at_the_usual_place(void)
{
    toolb_consumer *consumer = NULL;
    char text[512] = "";
    unsetenv("TOOLB_BUS");
    setenv("XDG_RUNTIME_DIR", "/nowhere", 1);
    EXPECT(toolb_consumer_attach(NULL, NULL, &consumer), TOOLB_CANNOT_ATTACH);
    (void)toolb_last_error(text, sizeof text, NULL);
    REQUIRE(strstr(text, "/nowhere/toolb/bus") != NULL);
}

int main(int argc, char **argv)
{
    toolb_consumer *consumer = NULL, *second = NULL;
    int number, client;
    if (argc < 3)
        return 2;
    program = argv[0];
    address = argv[1];
    without_a_consumer();

    EXPECT(toolb_consumer_attach(NULL, NULL, &consumer), TOOLB_OK);
    /* The socket is taken. */
    EXPECT(toolb_consumer_attach(NULL, NULL, &second), TOOLB_CANNOT_ATTACH);
    at_the_usual_place();

    EXPECT(toolb_consumer_fd(consumer, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fd(consumer, &number), TOOLB_OK);
    EXPECT(toolb_consumer_arm(consumer, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fail(consumer, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_wait(consumer, 0), TOOLB_TIMEOUT);
    EXPECT(toolb_consumer_poll(consumer, 0, NULL), TOOLB_OK);
    EXPECT(toolb_consumer_ready(consumer), TOOLB_OK);
    EXPECT(toolb_consumer_ready(consumer), TOOLB_OK);
    with_exchanges(consumer);

    client = ask("GET /run HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    EXPECT(toolb_consumer_run(consumer, handler, consumer), TOOLB_OK);
    EXPECT(toolb_consumer_free(consumer), TOOLB_OK);
    REQUIRE(answer(client) == 200);

    number = open(argv[2], O_WRONLY | O_CREAT, 0600);
    REQUIRE(number >= 0);
    close(number);
    return 0;
}
