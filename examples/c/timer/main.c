/*
 * Timers on the loop: no thread waits, however many clients do.
 *
 *     ./timer [PORT]
 *
 *     curl localhost:8080/after/1000        one answer, a second later
 *     curl -N localhost:8080/ticks/5        five lines, one every 100 ms
 */
#include "../common/serve.h"

/* What a timer is given: an answer, perhaps in several parts. */
struct answer {
    toolb_token *token;
    long sent, count;
};

/* The number that a parameter of the route is, or -1. */
static long number(const toolb_request *request, const char *name)
{
    toolb_slice text;
    char digits[8] = "";
    if (toolb_request_param(request, name, &text) != TOOLB_OK || text.len >= sizeof digits)
        return -1;
    memcpy(digits, text.data, text.len);
    return digits[0] != '\0' && strspn(digits, "0123456789") == text.len ? atol(digits) : -1;
}

static int refuse(toolb_response *response)
{
    (void)toolb_response_status(response, 400);
    (void)toolb_response_write(response, "give a number of up to 7 digits\n", 32);
    return TOOLB_DONE;
}

/* A timer lets go of what it was given once it has fired, or when the loop ends before. */
static void drop(void *data)
{
    struct answer *answer = data;
    if (answer->token != NULL)
        (void)toolb_token_abort(answer->token);
    free(answer);
}

/* Takes the right to answer, for a timer. */
static struct answer *later(toolb_response *response, long count)
{
    struct answer *answer = calloc(1, sizeof *answer);
    if (answer == NULL || toolb_response_later(response, &answer->token) != TOOLB_OK)
        abort();
    answer->count = count;
    return answer;
}

static void waited(void *data)
{
    struct answer *answer = data;
    (void)toolb_token_answer(answer->token, "waited\n", 7);
    answer->token = NULL;
}

static int after(void *data, const toolb_request *request, toolb_response *response)
{
    long ms = number(request, "ms");
    (void)data;
    if (ms < 0)
        return refuse(response);
    (void)toolb_timer_start((uint64_t)ms, waited, later(response, 1), drop, NULL);
    return TOOLB_LATER;
}

static void tick(void *data)
{
    struct answer *now = data, *next;
    char text[32];
    int len = snprintf(text, sizeof text, "tick %ld\n", ++now->sent);
    if (toolb_token_write(now->token, text, (size_t)len) == TOOLB_GONE)
        return;
    if (now->sent == now->count) {
        (void)toolb_token_end(now->token);
        now->token = NULL;
        return;
    }
    next = malloc(sizeof *next);
    if (next == NULL)
        return;
    *next = *now;
    now->token = NULL;
    (void)toolb_timer_start(100, tick, next, drop, NULL);
}

static int ticks(void *data, const toolb_request *request, toolb_response *response)
{
    long count = number(request, "count");
    (void)data;
    if (count < 1)
        return refuse(response);
    (void)toolb_timer_start(0, tick, later(response, count), drop, NULL);
    return TOOLB_LATER;
}

int main(int argc, char **argv)
{
    toolb_options options = {.struct_size = sizeof options};
    toolb_engine *engine = NULL;
    options.timeout_graceful_shutdown_ms = 1000;
    check(engine, toolb_engine_new(&options, &engine));
    check(engine, toolb_engine_listen(engine, "127.0.0.1", port_of(argc, argv)));
    check(engine, toolb_engine_route(engine, "GET", "/after/{ms}", after, NULL));
    check(engine, toolb_engine_route(engine, "GET", "/ticks/{count}", ticks, NULL));
    return serve(engine);
}
