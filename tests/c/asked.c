/*
 * An engine that is asked from its own callbacks: while it starts, while it serves, while it drains,
 * and while it is freed. None of them waits for the others, and all that can be known is told.
 */
#include <stdatomic.h>

#include "expect.h"

static toolb_engine *engine;
static atomic_int inits, ticks, drains, exits;

static uint64_t accepted(void)
{
    toolb_stats stats = {.struct_size = sizeof stats};
    EXPECT(toolb_engine_stats(engine, &stats), TOOLB_OK);
    return stats.accepted + stats.streams_accepted + 1;
}

static void is_known(void)
{
    char text[128];
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_OK);
    REQUIRE(strncmp(text, "tcp://127.0.0.1:", 16) == 0);
    EXPECT(toolb_engine_bus(engine, text, sizeof text, NULL), TOOLB_NOT_FOUND);
    REQUIRE(accepted() > 0);
}

static void tick(void *user)
{
    (void)user;
    REQUIRE(accepted() > 0);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    /* Refused, and harmless. */
    toolb_engine_free(engine);
    ticks++;
    EXPECT(toolb_timer_start(0, tick, NULL, NULL, NULL), TOOLB_OK);
}

static void *on_init(void *user, uint32_t loop)
{
    (void)loop;
    REQUIRE(accepted() > 0);
    EXPECT(toolb_engine_start(engine), TOOLB_BAD_STATE);
    if (user != NULL)
        EXPECT(toolb_timer_start(0, tick, NULL, NULL, NULL), TOOLB_OK);
    inits++;
    return user;
}

static void on_drain(void *state, uint32_t loop)
{
    (void)loop;
    if (state == NULL)
        is_known();
    drains++;
}

static void on_exit_of(void *state, uint32_t loop)
{
    (void)loop;
    if (state == NULL)
        is_known();
    REQUIRE(accepted() > 0);
    exits++;
}

static void make(void *user)
{
    toolb_options options = {.struct_size = sizeof options, .loops = 2};
    toolb_service service = {
        .struct_size = sizeof service,
        .on_init = on_init,
        .on_exit = on_exit_of,
        .on_drain = on_drain,
    };
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);
    EXPECT(toolb_engine_service(engine, "127.0.0.1", 0, &service, user), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
}

int main(void)
{
    char text[128];
    int round;

    make(NULL);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_OK);
    REQUIRE(inits == 2 && drains == 2 && exits == 2);
    EXPECT(toolb_engine_address(engine, 0, text, sizeof text, NULL), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_run(engine), TOOLB_BAD_STATE);
    REQUIRE(accepted() > 0);
    toolb_engine_free(engine);

    for (round = 0; round < 20; round++) {
        int before = ticks;
        make(&round);
        while (ticks == before)
            ;
        toolb_engine_free(engine);
    }
    REQUIRE(inits == 42 && exits == 42 && ticks >= 20);
    return 0;
}
