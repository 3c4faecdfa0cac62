/* Tokens, timers, watches, states and counters, used wrongly: a status comes back, nothing crashes. */
#include "expect.h"

static int dropped;

static void never(void *user)
{
    (void)user;
    EXPECT_TRUE(!"called");
}

static void never_ready(void *user, int descriptor, uint32_t events)
{
    (void)user;
    (void)descriptor;
    (void)events;
    EXPECT_TRUE(!"called");
}

static void drop(void *user)
{
    EXPECT_TRUE(user == &dropped);
    ++dropped;
}

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

static void no_token(void)
{
    toolb_token *token = NULL;
    EXPECT(toolb_response_later(NULL, &token), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_status(NULL, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_field(NULL, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_write(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_wait(NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_end(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_answer(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_abort(NULL), TOOLB_NULL_ARGUMENT);
    /* What was given away is let go of, whatever the call comes to. */
    dropped = 0;
    EXPECT(toolb_token_on_cancel(NULL, never, &dropped, drop), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_token_on_writable(NULL, never, &dropped, drop), TOOLB_NULL_ARGUMENT);
    EXPECT_TRUE(dropped == 2);
}

static void no_loop(void)
{
    uint64_t id = 0;
    dropped = 0;
    EXPECT(toolb_timer_start(0, never, &dropped, drop, &id), TOOLB_WRONG_LOOP);
    EXPECT(toolb_timer_start(0, NULL, &dropped, drop, &id), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_timer_start(0, never, NULL, NULL, NULL), TOOLB_WRONG_LOOP);
    EXPECT(toolb_watch(0, TOOLB_WATCH_READ, never_ready, &dropped, drop, &id), TOOLB_WRONG_LOOP);
    EXPECT(toolb_watch(0, TOOLB_WATCH_READ, NULL, &dropped, drop, &id), TOOLB_NULL_ARGUMENT);
    EXPECT_TRUE(dropped == 4);
    EXPECT(toolb_timer_cancel(1), TOOLB_WRONG_LOOP);
    EXPECT(toolb_unwatch(1), TOOLB_WRONG_LOOP);
}

static void engines(void)
{
    toolb_engine *engine = NULL;
    toolb_stats stats = {.struct_size = sizeof stats};
    toolb_route route = {.struct_size = sizeof route, .handler = handler};
    EXPECT(toolb_engine_new(NULL, &engine), TOOLB_OK);

    EXPECT(toolb_engine_stats(NULL, &stats), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stats(engine, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    EXPECT_TRUE(stats.requests == 0 && stats.struct_size == sizeof stats);
    stats.struct_size = 8;
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_BAD_STRUCT_SIZE);

    EXPECT(toolb_engine_listen_unix(NULL, "/none", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, "", 0), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_listen_unix(engine, "/none", 0100000), TOOLB_BAD_ARGUMENT);

    EXPECT(toolb_engine_add_route(NULL, "GET", "/", &route), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_add_route(engine, "GET", "/", NULL), TOOLB_NULL_ARGUMENT);
    route.handler = NULL;
    EXPECT(toolb_engine_add_route(engine, "GET", "/", &route), TOOLB_NULL_ARGUMENT);
    route.struct_size = 0;
    EXPECT(toolb_engine_add_route(engine, "GET", "/", &route), TOOLB_BAD_STRUCT_SIZE);
    EXPECT_TRUE(toolb_request_state(NULL) == NULL);
    toolb_engine_free(engine);
}

int main(void)
{
    no_token();
    no_loop();
    engines();
    return 0;
}
