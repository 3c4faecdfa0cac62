/*
 * A small router: GET / answers with nothing, GET /user/<id> with the id, POST /user with nothing
 * and 201.
 *
 *     ./router [PORT [LOOPS]]        0 picks a free port
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <toolb.h>

static toolb_engine *engine;

static void on_signal(int number)
{
    (void)number;
    (void)toolb_engine_stop(engine);
}

static int home(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)toolb_response_field(response, "content-type", "text/plain");
    (void)toolb_response_write(response, "Hello, World!", 13);
    return TOOLB_DONE;
}

static int get_user(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_slice id;
    (void)data;
    if (toolb_request_param(request, "id", &id) != TOOLB_OK) {
        (void)toolb_response_status(response, 500);
        return TOOLB_DONE;
    }
    (void)toolb_response_field(response, "content-type", "text/plain");
    (void)toolb_response_write(response, id.data, id.len);
    return TOOLB_DONE;
}

static int create_user(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_slice body = toolb_request_body(request);
    (void)data;
    (void)toolb_response_status(response, 201);
    (void)toolb_response_write(response, body.data, body.len);
    return TOOLB_DONE;
}

/* Ends the program with the library's own explanation unless the call worked. */
static void check(toolb_status status)
{
    char text[512] = "";
    if (status == TOOLB_OK)
        return;
    if (engine != NULL)
        (void)toolb_engine_error(engine, text, sizeof text, NULL);
    fprintf(stderr, "router: %s\n", text[0] != '\0' ? text : toolb_status_text(status));
    exit(3);
}

int main(int argc, char **argv)
{
    toolb_options options = {.struct_size = sizeof options};
    char address[128];
    int port = argc > 1 ? atoi(argv[1]) : 8080;
    if (port < 0 || port > 65535) {
        fprintf(stderr, "router: %s is no port; give a number from 0 to 65535\n", argv[1]);
        return 2;
    }
    options.loops = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
    check(toolb_engine_new(&options, &engine));
    check(toolb_engine_listen(engine, "127.0.0.1", (uint16_t)port));
    check(toolb_engine_route(engine, "GET", "/", home, NULL));
    check(toolb_engine_route(engine, "GET", "/user/{id}", get_user, NULL));
    check(toolb_engine_route(engine, "POST", "/user", create_user, NULL));
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    check(toolb_engine_start(engine));
    check(toolb_engine_address(engine, 0, address, sizeof address, NULL));
    printf("serving on %s\n", address);
    fflush(stdout);
    check(toolb_engine_run(engine));
    toolb_engine_free(engine);
    return 0;
}
