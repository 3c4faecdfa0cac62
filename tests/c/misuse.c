/* Every entry point, used wrongly: a status comes back, nothing crashes. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "expect.h"

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

/* Whatever is given away is let go of once, also by a call that fails. */
static int dropped;

static void drop(void *user)
{
    if (user != &dropped)
        exit(1);
    dropped++;
}

static void nothing(void *user)
{
    (void)user;
}

static void nothing_ready(void *user, int fd, uint32_t events)
{
    (void)user;
    (void)fd;
    (void)events;
}

static void expect_dropped(int times)
{
    if (dropped != times) {
        fprintf(stderr, "dropped %d times, not %d\n", dropped, times);
        exit(1);
    }
    dropped = 0;
}

/* On a thread that is no loop, and with NULL. */
static void no_loop(void)
{
    uint64_t id = 0;
    EXPECT(toolb_timer_start(0, nothing, &dropped, drop, &id), TOOLB_WRONG_LOOP);
    EXPECT(toolb_timer_start(0, NULL, &dropped, drop, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_timer_cancel(1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_watch(0, TOOLB_WATCH_READ, nothing_ready, &dropped, drop, &id), TOOLB_WRONG_LOOP);
    EXPECT(toolb_watch(0, TOOLB_WATCH_READ, NULL, &dropped, drop, &id), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_unwatch(1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_token_status(NULL, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_field(NULL, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_write(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_answer(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_end(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_abort(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_wait(NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_on_cancel(NULL, nothing, &dropped, drop), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_on_writable(NULL, nothing, &dropped, drop), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_later(NULL, NULL), TOOLB_NULL_ARGUMENT);
    if (toolb_request_state(NULL) != NULL)
        exit(1);
    expect_dropped(6);
}

/* Expects that the last failure of this thread was about this. */
static void expect_line(const char *line)
{
    char text[512];
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    if (strstr(text, line) == NULL) {
        fprintf(stderr, "the last error is '%s', not '%s'\n", text, line);
        exit(1);
    }
}

static toolb_engine *running;
static toolb_token *kept;

/* On a loop: what does not belong there, and what makes no sense there either. */
static int on_loop(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_engine *other = NULL;
    toolb_token *second = NULL;
    uint64_t id = 0;
    int file = open("/proc/self/exe", O_RDONLY);
    (void)data;
    if (toolb_request_state(request) != NULL)
        exit(1);
    EXPECT(toolb_engine_run(running), TOOLB_BAD_STATE);
    expect_line("a callback cannot wait for the end");
    EXPECT(toolb_engine_free(running), TOOLB_BAD_STATE);
    /* One that has no loops needs to wait for none. */
    EXPECT(toolb_engine_new(NULL, &other), TOOLB_OK);
    EXPECT(toolb_engine_free(other), TOOLB_OK);

    EXPECT(toolb_timer_start(0, NULL, &dropped, drop, &id), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_timer_start(3600000, nothing, &dropped, drop, &id), TOOLB_OK);
    EXPECT(toolb_timer_cancel(id), TOOLB_OK);
    EXPECT(toolb_timer_cancel(id), TOOLB_NOT_FOUND);
    EXPECT(toolb_timer_cancel(UINT64_MAX), TOOLB_NOT_FOUND);
    expect_dropped(2);

    EXPECT(toolb_watch(-1, TOOLB_WATCH_READ, nothing_ready, &dropped, drop, &id),
           TOOLB_BAD_ARGUMENT);
    expect_line("descriptor -1 cannot be watched: it is not open");
    EXPECT(toolb_watch(1 << 30, TOOLB_WATCH_READ, nothing_ready, &dropped, drop, &id),
           TOOLB_BAD_ARGUMENT);
    expect_line("descriptor 1073741824 cannot be watched: it is not open");
    EXPECT(toolb_watch(file, TOOLB_WATCH_READ, nothing_ready, &dropped, drop, &id),
           TOOLB_BAD_ARGUMENT);
    expect_line("as plain files can");
    EXPECT(toolb_watch(file, 0, nothing_ready, &dropped, drop, &id), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_watch(file, 99, nothing_ready, &dropped, drop, &id), TOOLB_BAD_ARGUMENT);
    expect_line("99 are no events to watch for");
    EXPECT(toolb_unwatch(UINT64_MAX), TOOLB_NOT_FOUND);
    expect_dropped(5);
    close(file);

    EXPECT(toolb_stream_connect("localhost", 80, 0, NULL, &id), TOOLB_BAD_ARGUMENT);
    expect_line("\"localhost\" is no numeric address");
    EXPECT(toolb_stream_connect("127.0.0.1", 80, 0, NULL, &id), TOOLB_BAD_STATE);
    expect_line("no service that the stream could belong to");

    EXPECT(toolb_response_later(response, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_later(response, &kept), TOOLB_OK);
    EXPECT(toolb_response_later(response, &second), TOOLB_BAD_STATE);
    expect_line("there has been a token for this request");
    if (second != NULL)
        exit(1);
    EXPECT(toolb_token_wait(kept, 0), TOOLB_BAD_STATE);
    expect_line("use toolb_token_on_writable");
    EXPECT(toolb_token_on_cancel(kept, NULL, &dropped, drop), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_field(kept, NULL, "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_write(kept, NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_answer(kept, NULL, 1), TOOLB_NULL_ARGUMENT);
    /* The second takes the place of the first. */
    EXPECT(toolb_token_on_cancel(kept, nothing, &dropped, drop), TOOLB_OK);
    EXPECT(toolb_token_on_cancel(kept, nothing, &dropped, drop), TOOLB_OK);
    EXPECT(toolb_token_on_writable(kept, nothing, &dropped, drop), TOOLB_OK);
    expect_dropped(2);
    EXPECT(toolb_token_write(kept, "begun", 5), TOOLB_OK);
    EXPECT(toolb_token_status(kept, 404), TOOLB_BAD_STATE);
    EXPECT(toolb_token_field(kept, "a", "b"), TOOLB_BAD_STATE);
    expect_line("before the first toolb_token_write");
    return TOOLB_LATER;
}

/* A token that outlives its client, and then its engine. */
static void late(void)
{
    char path[] = "/tmp/toolb-misuse-XXXXXX";
    struct sockaddr_un to;
    char byte;
    toolb_token *token;
    int fd;
    toolb_options options = {.struct_size = sizeof options};
    const char *request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0 || unlink(path) != 0)
        exit(1);
    options.timeout_graceful_shutdown_ms = TOOLB_OFF;
    EXPECT(toolb_engine_new(&options, &running), TOOLB_OK);
    EXPECT(toolb_engine_listen_unix(running, path, 0), TOOLB_OK);
    EXPECT(toolb_engine_route(running, "GET", "/", on_loop, NULL), TOOLB_OK);
    EXPECT(toolb_engine_start(running), TOOLB_OK);
    memset(&to, 0, sizeof to);
    to.sun_family = AF_UNIX;
    memcpy(to.sun_path, path, sizeof path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        write(fd, request, strlen(request)) != (ssize_t)strlen(request) ||
        read(fd, &byte, 1) != 1 || byte != 'H')
        exit(1);
    /* It has begun, so the handler is done with the token. */
    token = kept;
    EXPECT(toolb_token_wait(token, 0), TOOLB_OK);
    EXPECT(toolb_engine_stop(running), TOOLB_OK);
    EXPECT(toolb_engine_run(running), TOOLB_OK);
    expect_dropped(2);
    EXPECT(toolb_token_write(token, "late", 4), TOOLB_GONE);
    EXPECT(toolb_token_wait(token, -1), TOOLB_GONE);
    EXPECT(toolb_token_on_writable(token, nothing, &dropped, drop), TOOLB_GONE);
    toolb_engine_free(running);
    EXPECT(toolb_token_on_cancel(token, nothing, &dropped, drop), TOOLB_GONE);
    expect_dropped(2);
    EXPECT(toolb_token_answer(token, "later still", 11), TOOLB_GONE);
    close(fd);
}

/* An engine that was told to end, with hours of time for its client, is freed at once all the same. */
static void impatient(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    toolb_options options = {.struct_size = sizeof options};
    toolb_engine *engine;
    const char *request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";
    char text[256];
    int fd = socket(AF_INET, SOCK_STREAM, 0), other;
    options.timeout_graceful_shutdown_ms = 3600000;
    options.timeout_request_body_ms = 3600000;
    options.request_body_min_rate = TOOLB_OFF;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);
    EXPECT(toolb_engine_route(engine, "POST", "/", handler, NULL), TOOLB_OK);
    EXPECT(toolb_engine_listen(engine, "127.0.0.1", 0), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_OK);
    to.sin_port = htons((uint16_t)atoi(strrchr(text, ':') + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    REQUIRE(write(fd, request, strlen(request)) == (ssize_t)strlen(request));
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    /* It has heard of it when it lets nobody in any more. */
    do {
        other = socket(AF_INET, SOCK_STREAM, 0);
    } while (connect(other, (struct sockaddr *)&to, sizeof to) == 0 && close(other) == 0);
    close(other);
    toolb_engine_free(engine);
    close(fd);
}

int main(void)
{
    toolb_engine *engine = NULL;
    toolb_engine *other = NULL;
    toolb_options options;
    toolb_stats stats = {0};
    toolb_route route = {0};
    toolb_service service = {.struct_size = sizeof service};
    toolb_slice slice;
    char text[256];
    size_t needed = 0;

    if (toolb_abi_version() != TOOLB_ABI_VERSION || toolb_version()[0] == '\0')
        return 1;
    if (strcmp(toolb_status_text(TOOLB_OK), "ok") != 0 || toolb_status_text(0xfffffff9)[0] == '\0')
        return 1;

    EXPECT(toolb_engine_new(NULL, NULL), TOOLB_NULL_ARGUMENT);
    memset(&options, 0, sizeof options);
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_BAD_STRUCT_SIZE);
    options.struct_size = sizeof options;
    options.loops = 100000;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_BAD_ARGUMENT);
    if (engine != NULL)
        return 1;
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    if (strstr(text, "io-threads: 100000") == NULL)
        return 1;
    options.loops = 2;
    options.queue_timeout_ms = TOOLB_OFF;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_BAD_ARGUMENT);
    options.queue_timeout_ms = 0;
    options.server = "\xff";
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_NOT_UTF8);
    /* A program of the first version: what it does not know is not read. */
    options.struct_size = offsetof(toolb_options, limit_request_line);
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);

    EXPECT(toolb_engine_listen_unix(NULL, "/x", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, "", 0), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, "/x", 0x10000), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_service_unix(engine, NULL, 0, &service, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_service_unix(engine, "", 0, &service, NULL), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_service_unix(engine, "/x", 0x10000, &service, NULL), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_stats(NULL, &stats), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stats(engine, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_BAD_STRUCT_SIZE);
    stats.struct_size = sizeof stats;
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    EXPECT(toolb_engine_add_route(engine, "GET", "/", NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_add_route(engine, "GET", "/", &route), TOOLB_BAD_STRUCT_SIZE);
    route.struct_size = sizeof route;
    EXPECT(toolb_engine_add_route(engine, "GET", "/", &route), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_add_route(NULL, "GET", "/", &route), TOOLB_NULL_ARGUMENT);

    EXPECT(toolb_engine_listen(NULL, "127.0.0.1", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen(engine, "\xff", 0), TOOLB_NOT_UTF8);
    EXPECT(toolb_engine_start(engine), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_error(engine, text, sizeof text, &needed), TOOLB_OK);
    if (strstr(text, "toolb_engine_listen") == NULL || needed != strlen(text) + 1)
        return 1;
    EXPECT(toolb_engine_error(engine, text, 3, &needed), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_engine_route(engine, "GET", "/user/:id", handler, NULL), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_error(engine, text, sizeof text, NULL), TOOLB_OK);
    if (strstr(text, "{id} instead of :id") == NULL)
        return 1;
    EXPECT(toolb_engine_route(engine, "GET", "/", NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_route(engine, NULL, "/", handler, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_route(engine, "GET", "/", handler, NULL), TOOLB_OK);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_BAD_STATE);

    EXPECT(toolb_engine_listen(engine, "127.0.0.1", 0), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_listen(engine, "127.0.0.1", 0), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_route(engine, "GET", "/x", handler, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_OK);
    EXPECT(toolb_engine_address(engine, 1, text, sizeof text, NULL), TOOLB_NOT_FOUND);

    /* A second engine on the same port is refused in words. */
    EXPECT(toolb_engine_new(NULL, &other), TOOLB_OK);
    EXPECT(toolb_engine_listen(other, "127.0.0.1", (uint16_t)atoi(strrchr(text, ':') + 1)),
           TOOLB_OK);
    EXPECT(toolb_engine_run(other), TOOLB_CANNOT_START);
    EXPECT(toolb_engine_error(other, text, sizeof text, NULL), TOOLB_OK);
    /* This program has no options to name. */
    if (strstr(text, "the port is taken") == NULL || strstr(text, "--") != NULL)
        return 1;
    EXPECT(toolb_engine_run(other), TOOLB_BAD_STATE);
    toolb_engine_free(other);

    EXPECT(toolb_engine_stop(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    EXPECT(toolb_engine_free(engine), TOOLB_OK);
    EXPECT(toolb_engine_free(NULL), TOOLB_OK);
    no_loop();
    late();
    impatient();

    EXPECT(toolb_request_param(NULL, "id", &slice), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_request_field(NULL, "host", &slice), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_request_field_at(NULL, 0, &slice, &slice), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_log_error(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_log_error("of a test,\non \xff purpose"), TOOLB_OK);
    REQUIRE(toolb_request_field_count(NULL) == 0);
    REQUIRE(toolb_request_peer(NULL, NULL).len == 0);
    EXPECT(toolb_response_status(NULL, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_field(NULL, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_write(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_clear(NULL), TOOLB_NULL_ARGUMENT);
    if (toolb_request_method(NULL).len != 0 || toolb_request_path(NULL).len != 0 ||
        toolb_request_query(NULL).len != 0 || toolb_request_body(NULL).len != 0)
        return 1;
    return 0;
}
