/* Every entry point, used wrongly: a status comes back, nothing crashes. */
#include "expect.h"

static int handler(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    (void)response;
    return TOOLB_DONE;
}

int main(void)
{
    toolb_engine *engine = NULL;
    toolb_engine *other = NULL;
    toolb_options options;
    toolb_slice slice;
    char text[256];
    size_t needed = 0;

    EXPECT_TRUE(toolb_abi_version() == TOOLB_ABI_VERSION && toolb_version()[0] != '\0');
    EXPECT_TRUE(strcmp(toolb_status_text(TOOLB_OK), "ok") == 0 && toolb_status_text(-7)[0] != '\0');

    EXPECT(toolb_engine_new(NULL, NULL), TOOLB_NULL_ARGUMENT);
    memset(&options, 0, sizeof options);
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_BAD_STRUCT_SIZE);
    options.struct_size = sizeof options;
    options.loops = 100000;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_BAD_ARGUMENT);
    EXPECT_TRUE(engine == NULL);
    options.loops = 2;
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);

    EXPECT(toolb_engine_listen(NULL, "127.0.0.1", 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen(engine, NULL, 0), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_listen(engine, "\xff", 0), TOOLB_NOT_UTF8);
    EXPECT(toolb_engine_start(engine), TOOLB_BAD_STATE);
    EXPECT(toolb_engine_error(engine, text, sizeof text, &needed), TOOLB_OK);
    EXPECT_TRUE(strstr(text, "toolb_engine_listen") != NULL && needed == strlen(text) + 1);
    EXPECT(toolb_engine_error(engine, text, 3, &needed), TOOLB_BUFFER_TOO_SMALL);
    EXPECT(toolb_engine_route(engine, "GET", "/user/:id", handler, NULL), TOOLB_BAD_ARGUMENT);
    EXPECT(toolb_engine_error(engine, text, sizeof text, NULL), TOOLB_OK);
    EXPECT_TRUE(strstr(text, "{id} instead of :id") != NULL);
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
    EXPECT_TRUE(strstr(text, "the port is taken") != NULL);
    EXPECT(toolb_engine_run(other), TOOLB_BAD_STATE);
    toolb_engine_free(other);

    EXPECT(toolb_engine_stop(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_OK);
    EXPECT(toolb_engine_run(engine), TOOLB_BAD_STATE);
    toolb_engine_free(engine);
    toolb_engine_free(NULL);

    EXPECT(toolb_request_param(NULL, "id", &slice), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_request_field(NULL, "host", &slice), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_status(NULL, 200), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_field(NULL, "a", "b"), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_write(NULL, "a", 1), TOOLB_NULL_ARGUMENT);
    EXPECT(toolb_response_clear(NULL), TOOLB_NULL_ARGUMENT);
    EXPECT_TRUE(toolb_request_method(NULL).len == 0 && toolb_request_path(NULL).len == 0 &&
                toolb_request_query(NULL).len == 0 && toolb_request_body(NULL).len == 0);
    return 0;
}
