/*
 * "Hello, World!" in C, inline in the engine or as a consumer, by the same handler:
 *
 *     hello_c PORT          serves on 127.0.0.1 by one loop; 0 picks a free port
 *     hello_c bus PATH      answers for the engine at that bus, as soon as it is there
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <toolb.h>

static toolb_engine *engine;

static int hello(void *data, const toolb_request *request, toolb_response *response)
{
	(void)data;
	(void)request;
	(void)toolb_response_field(response, "content-type", "text/plain");
	(void)toolb_response_write(response, "Hello, World!", 13);
	return TOOLB_DONE;
}

static void fail(toolb_status status)
{
	char text[512] = "";
	if (engine)
		(void)toolb_engine_error(engine, text, sizeof text, NULL);
	else
		(void)toolb_last_error(text, sizeof text, NULL);
	fprintf(stderr, "hello_c: %s\n", text[0] ? text : toolb_status_text(status));
	exit(3);
}

static void check(toolb_status status)
{
	if (status != TOOLB_OK)
		fail(status);
}

static void on_signal(int number)
{
	(void)number;
	(void)toolb_engine_stop(engine);
}

static void serve(int port)
{
	toolb_options options = {.struct_size = sizeof options, .loops = 1};
	char address[128];
	check(toolb_engine_new(&options, &engine));
	check(toolb_engine_listen(engine, "127.0.0.1", (uint16_t)port));
	check(toolb_engine_route(engine, "GET", "/", hello, NULL));
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	check(toolb_engine_start(engine));
	check(toolb_engine_address(engine, 0, address, sizeof address, NULL));
	printf("serving on %s\n", address);
	fflush(stdout);
	check(toolb_engine_run(engine));
	toolb_engine_free(engine);
}

static void consume(const char *bus)
{
	/* The engine is started at the same time. */
	const toolb_consumer_options options = {.struct_size = sizeof options,
	                                        .attach_patience_ms = 10000};
	toolb_consumer *consumer = NULL;
	check(toolb_consumer_attach(bus, &options, &consumer));
	toolb_status status = toolb_consumer_run(consumer, hello, NULL);
	if (status != TOOLB_HANG_UP)
		check(status);
	toolb_consumer_free(consumer);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "bus") == 0)
		consume(argv[2]);
	else if (argc == 2)
		serve(atoi(argv[1]));
	else
		return fprintf(stderr, "usage: hello_c PORT, or hello_c bus PATH\n"), 2;
	return 0;
}
