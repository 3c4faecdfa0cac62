/*
 * An API that speaks JSON: a store of documents. Parsing is left to the library of your choice; what
 * is shown is methods, parameters, fields, status codes and data that several loops share.
 *
 *     ./json [PORT]
 *
 *     PUT    /documents/{id}    stores the body, which is application/json
 *     GET    /documents/{id}    sends it
 *     DELETE /documents/{id}    forgets it
 *     GET    /documents         sends the ids: {"ids": ["a", "b"]}
 */
#include <pthread.h>

#include "../common/serve.h"

typedef struct document {
    struct document *next;
    char *id;
    char *body;
    size_t id_len, body_len;
} document;

/* Handlers run on all loops at once; each holds the lock for moments only. */
typedef struct {
    pthread_mutex_t lock;
    document *first;
} store;

static char *copy_of(toolb_slice slice)
{
    char *copy = malloc(slice.len + 1);
    if (copy == NULL)
        abort();
    memcpy(copy, slice.data, slice.len);
    copy[slice.len] = '\0';
    return copy;
}

/* The link that leads to the document, or the one that ends the list. */
static document **find(store *all, toolb_slice id)
{
    document **link = &all->first;
    while (*link != NULL &&
           ((*link)->id_len != id.len || memcmp((*link)->id, id.data, id.len) != 0))
        link = &(*link)->next;
    return link;
}

static void forget(document **link)
{
    document *old = *link;
    *link = old->next;
    free(old->id);
    free(old->body);
    free(old);
}

static int error(toolb_response *response, uint16_t status, const char *json)
{
    (void)toolb_response_status(response, status);
    (void)toolb_response_field(response, "content-type", "application/json");
    (void)toolb_response_write(response, json, strlen(json));
    return TOOLB_DONE;
}

static int put(void *data, const toolb_request *request, toolb_response *response)
{
    static const char json[] = "application/json";
    store *all = data;
    toolb_slice id, type, body = toolb_request_body(request);
    document **link, *made;
    if (toolb_request_param(request, "id", &id) != TOOLB_OK)
        return error(response, 500, "{\"error\": \"the route has no id\"}");
    if (toolb_request_field(request, "content-type", &type) != TOOLB_OK ||
        type.len < sizeof json - 1 || memcmp(type.data, json, sizeof json - 1) != 0)
        return error(response, 415, "{\"error\": \"send application/json\"}");
    made = calloc(1, sizeof *made);
    if (made == NULL)
        abort();
    made->id = copy_of(id);
    made->id_len = id.len;
    made->body = copy_of(body);
    made->body_len = body.len;

    pthread_mutex_lock(&all->lock);
    link = find(all, id);
    (void)toolb_response_status(response, *link == NULL ? 201 : 204);
    if (*link != NULL)
        forget(link);
    made->next = *link;
    *link = made;
    pthread_mutex_unlock(&all->lock);
    return TOOLB_DONE;
}

static int get(void *data, const toolb_request *request, toolb_response *response)
{
    store *all = data;
    toolb_slice id;
    document *found;
    if (toolb_request_param(request, "id", &id) != TOOLB_OK)
        return error(response, 500, "{\"error\": \"the route has no id\"}");
    pthread_mutex_lock(&all->lock);
    found = *find(all, id);
    if (found == NULL) {
        error(response, 404, "{\"error\": \"there is no such document\"}");
    } else {
        (void)toolb_response_field(response, "content-type", "application/json");
        (void)toolb_response_write(response, found->body, found->body_len);
    }
    pthread_mutex_unlock(&all->lock);
    return TOOLB_DONE;
}

static int delete(void *data, const toolb_request *request, toolb_response *response)
{
    store *all = data;
    toolb_slice id;
    document **link;
    if (toolb_request_param(request, "id", &id) != TOOLB_OK)
        return error(response, 500, "{\"error\": \"the route has no id\"}");
    pthread_mutex_lock(&all->lock);
    link = find(all, id);
    (void)toolb_response_status(response, *link == NULL ? 404 : 204);
    if (*link != NULL)
        forget(link);
    pthread_mutex_unlock(&all->lock);
    return TOOLB_DONE;
}

/* Writes a text as JSON has it. */
static void write_string(toolb_response *response, const char *text, size_t len)
{
    (void)toolb_response_write(response, "\"", 1);
    for (size_t at = 0; at < len; ++at) {
        char escaped[8];
        unsigned char byte = (unsigned char)text[at];
        if (byte == '"' || byte == '\\')
            (void)toolb_response_write(response, "\\", 1);
        if (byte < 0x20)
            (void)toolb_response_write(response, escaped,
                                       (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", byte));
        else
            (void)toolb_response_write(response, text + at, 1);
    }
    (void)toolb_response_write(response, "\"", 1);
}

static int list(void *data, const toolb_request *request, toolb_response *response)
{
    store *all = data;
    (void)request;
    (void)toolb_response_field(response, "content-type", "application/json");
    (void)toolb_response_write(response, "{\"ids\": [", 9);
    pthread_mutex_lock(&all->lock);
    for (const document *at = all->first; at != NULL; at = at->next) {
        if (at != all->first)
            (void)toolb_response_write(response, ", ", 2);
        write_string(response, at->id, at->id_len);
    }
    pthread_mutex_unlock(&all->lock);
    (void)toolb_response_write(response, "]}", 2);
    return TOOLB_DONE;
}

int main(int argc, char **argv)
{
    toolb_options options = {.struct_size = sizeof options, .loops = 2};
    store all = {.lock = PTHREAD_MUTEX_INITIALIZER};
    toolb_engine *engine = NULL;
    int code;
    check(engine, toolb_engine_new(&options, &engine));
    check(engine, toolb_engine_listen(engine, "127.0.0.1", port_of(argc, argv)));
    check(engine, toolb_engine_route(engine, "PUT", "/documents/{id}", put, &all));
    check(engine, toolb_engine_route(engine, "GET", "/documents/{id}", get, &all));
    check(engine, toolb_engine_route(engine, "DELETE", "/documents/{id}", delete, &all));
    check(engine, toolb_engine_route(engine, "GET", "/documents", list, &all));
    code = serve(engine);
    while (all.first != NULL)
        forget(&all.first);
    return code;
}
