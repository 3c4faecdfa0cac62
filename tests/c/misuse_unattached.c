/* Consumers without an engine, and their functions without a consumer: a status comes back. */
#include "expect.h"

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

static void attaching_fails_in_words(void)
{
    toolb_consumer_options options = {.struct_size = sizeof options};
    toolb_consumer *consumer = NULL;
    char text[512];
    size_t needed = 0;

    EXPECT(toolb_consumer_attach("/none", NULL, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_attach("/none", NULL, &consumer), TOOLB_CANNOT_ATTACH);
    REQUIRE(consumer == NULL);
    EXPECT(toolb_last_error(text, sizeof text, &needed), TOOLB_OK);
    REQUIRE(strstr(text, "/none") != NULL && needed == strlen(text) + 1);
    EXPECT(toolb_last_error(text, 2, &needed), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_consumer_attach("run/bus", NULL, &consumer), TOOLB_CANNOT_ATTACH);
    EXPECT(toolb_last_error(text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strstr(text, "\"run/bus\" is no address of a bus: expected a path that begins with a slash") != NULL);
    EXPECT(toolb_consumer_attach("fd:99999", NULL, &consumer), TOOLB_CANNOT_ATTACH);
    REQUIRE(toolb_consumer_attach("fd:x", NULL, &consumer) != TOOLB_OK);
    EXPECT(toolb_consumer_attach("/\xff", NULL, &consumer), TOOLB_CANNOT_ATTACH);
    options.struct_size = 4;
    EXPECT(toolb_consumer_attach("/none", &options, &consumer), TOOLB_BAD_STRUCT_SIZE);
    options.struct_size = sizeof options;
    options.slots = 1000000;
    EXPECT(toolb_consumer_attach("/none", &options, &consumer), TOOLB_BAD_ARGUMENT);
    options.slots = 0;
    options.name = "\xff";
    EXPECT(toolb_consumer_attach("/none", &options, &consumer), TOOLB_NOT_UTF8);
    REQUIRE(consumer == NULL);
}

static void nothing_works_on_nothing(void)
{
    toolb_event event = {.struct_size = sizeof event};
    size_t count;
    int number;

    EXPECT(toolb_consumer_ready(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fail(NULL, "why", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_fd(NULL, &number), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_poll(NULL, 1, &count), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_next(NULL, &event), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_arm(NULL, &number), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_wait(NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_flush(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_run(NULL, handler, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_stop(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_consumer_free(NULL), TOOLB_OK);

    EXPECT(toolb_exchange_status(NULL, 1, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_field(NULL, 1, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_answer(NULL, 1, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_write(NULL, 1, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_end(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_done(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_abort(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_pause(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_resume(NULL, 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_exchange_set_user_data(NULL, 1, NULL), TOOLB_NULL_ARGUMENT);
}

int main(void)
{
    attaching_fails_in_words();
    nothing_works_on_nothing();
    return 0;
}
