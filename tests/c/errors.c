/* After every call that failed there is a line that is true of it, wherever one asks. */
#include "expect.h"

static char text[512];
static toolb_engine *engine;

/* Expects that a call of the engine is refused, and that its line and the thread's say why. */
static void expect_line(toolb_status status, toolb_status wanted, const char *line)
{
    char last[512];
    EXPECT(status, wanted);
    MUST(toolb_engine_error(engine, text, sizeof text, NULL));
    MUST(toolb_last_error(last, sizeof last, NULL));
    if (strstr(text, line) == NULL || strcmp(text, last) != 0) {
        fprintf(stderr, "the engine's line is '%s', the thread's '%s', not '%s'\n", text, last, line);
        exit(1);
    }
}

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

int main(void)
{
    toolb_options options = {0};
    toolb_service service = {0};
    toolb_stats stats = {0};
    toolb_consumer *consumer;
    size_t needed;
    MUST(toolb_engine_error(NULL, text, sizeof text, NULL));
    REQUIRE(text[0] == '\0');

    /* There is no engine: its error is that of the thread. */
    expect_line(toolb_engine_new(NULL, NULL), TOOLB_NULL_ARGUMENT, "toolb_engine_new: an argument");
    expect_line(toolb_engine_new(&options, &engine), TOOLB_BAD_STRUCT_SIZE,
                "toolb_engine_new: struct_size is too small");
    options.struct_size = sizeof options;
    options.loops = 100000;
    expect_line(toolb_engine_new(&options, &engine), TOOLB_BAD_ARGUMENT, "io-threads: 100000");
    options.loops = 1;
    options.server = "\xff";
    expect_line(toolb_engine_new(&options, &engine), TOOLB_NOT_UTF8,
                "toolb_engine_new: a text argument is not UTF-8");
    expect_line(toolb_engine_listen(NULL, "127.0.0.1", 0), TOOLB_NULL_ARGUMENT,
                "toolb_engine_listen: an argument");
    expect_line(toolb_engine_start(NULL), TOOLB_NULL_ARGUMENT, "toolb_engine_start: an argument");

    MUST(toolb_engine_new(NULL, &engine));
    MUST(toolb_engine_error(engine, text, sizeof text, NULL));
    REQUIRE(text[0] == '\0');
    expect_line(toolb_engine_route(engine, "GET", "/:id", handler, NULL), TOOLB_BAD_ARGUMENT,
                "{id} instead of :id");
    /* No line of an earlier call stays. */
    expect_line(toolb_engine_listen(engine, NULL, 0), TOOLB_NULL_ARGUMENT,
                "toolb_engine_listen: an argument that must not be NULL is NULL");
    expect_line(toolb_engine_listen(engine, "\xff", 0), TOOLB_NOT_UTF8,
                "toolb_engine_listen: a text argument is not UTF-8");
    expect_line(toolb_engine_service(engine, NULL, 0, &service, NULL), TOOLB_BAD_STRUCT_SIZE,
                "toolb_engine_service: struct_size is too small: set it to sizeof the struct");
    expect_line(toolb_engine_stats(engine, &stats), TOOLB_BAD_STRUCT_SIZE, "toolb_engine_stats: ");
    expect_line(toolb_engine_listen_unix(engine, "", 0), TOOLB_BAD_ARGUMENT, "a Unix socket has");
    expect_line(toolb_engine_start(engine), TOOLB_BAD_STATE, "no address to listen on");
    expect_line(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_BAD_STATE,
                "the engine does not run");
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_start(engine));
    expect_line(toolb_engine_address(engine, 0, text, 2, NULL), TOOLB_BUFFER_TOO_SMALL,
                "toolb_engine_address: the buffer is too small");
    expect_line(toolb_engine_address(engine, 9, text, sizeof text, NULL), TOOLB_NOT_FOUND,
                "toolb_engine_address: there is nothing");
    expect_line(toolb_engine_start(engine), TOOLB_BAD_STATE, "has been started");
    expect_line(toolb_engine_consumer(engine, NULL, &consumer), TOOLB_CANNOT_ATTACH, "a pool");
    /* To ask for a line, with whatever buffer, leaves it as it is. */
    EXPECT(toolb_engine_error(engine, text, 2, &needed), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_engine_error(NULL, text, 2, &needed), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_last_error(NULL, 0, &needed), TOOLB_BUFFER_TOO_SMALL);
    MUST(toolb_last_error(text, sizeof text, NULL));
    REQUIRE(strstr(text, "a pool") != NULL && needed == strlen(text) + 1);

    /* So it is where no engine takes part. */
    EXPECT(toolb_timer_cancel(1), TOOLB_WRONG_LOOP);
    MUST(toolb_last_error(text, sizeof text, NULL));
    REQUIRE(strcmp(text, "toolb_timer_cancel: outside of a callback on the loop that owns the object") == 0);
    toolb_engine_free(engine);
    return 0;
}
