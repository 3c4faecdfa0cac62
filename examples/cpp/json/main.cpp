// An API that speaks JSON: a store of documents. Parsing is left to the library of your choice; what
// is shown is methods, parameters, fields, status codes and data that several loops share.
//
//     ./json [PORT]
//
//     PUT    /documents/{id}    stores the body, which is application/json
//     GET    /documents/{id}    sends it
//     DELETE /documents/{id}    forgets it
//     GET    /documents         sends the ids: {"ids": ["a", "b"]}
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include <toolb.hpp>

namespace {

// Handlers run on all loops at once; each holds the lock for moments only.
struct Store {
    std::mutex lock;
    std::map<std::string, std::string, std::less<>> documents;
};

void send_json(toolb::Response &response, std::string_view json)
{
    response.field("content-type", "application/json").write(json);
}

void put(Store &store, const toolb::Request &request, toolb::Response &response)
{
    constexpr std::string_view json = "application/json";
    if (request.field("content-type").value_or("").substr(0, json.size()) != json) {
        send_json(response.status(415), R"({"error": "send application/json"})");
        return;
    }
    const std::lock_guard held(store.lock);
    const bool is_new =
        store.documents.insert_or_assign(std::string(request.param("id")), request.body()).second;
    response.status(is_new ? 201 : 204);
}

void get(Store &store, const toolb::Request &request, toolb::Response &response)
{
    const std::lock_guard held(store.lock);
    const auto found = store.documents.find(request.param("id"));
    if (found == store.documents.end())
        send_json(response.status(404), R"({"error": "there is no such document"})");
    else
        send_json(response, found->second);
}

void remove(Store &store, const toolb::Request &request, toolb::Response &response)
{
    const std::lock_guard held(store.lock);
    const auto found = store.documents.find(request.param("id"));
    response.status(found == store.documents.end() ? 404 : 204);
    if (found != store.documents.end())
        store.documents.erase(found);
}

// A text as JSON has it.
std::string quoted(std::string_view text)
{
    std::string json = "\"";
    for (const char byte : text) {
        char escaped[8] = {byte};
        if (static_cast<unsigned char>(byte) < 0x20)
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(byte));
        else if (byte == '"' || byte == '\\')
            json += '\\';
        json += escaped;
    }
    return json + '"';
}

void list(Store &store, toolb::Response &response)
{
    std::string ids;
    const std::lock_guard held(store.lock);
    for (const auto &document : store.documents)
        ids += (ids.empty() ? "" : ", ") + quoted(document.first);
    send_json(response, R"({"ids": [)" + ids + "]}");
}

} // namespace

int main(int argc, char **argv)
{
    using toolb::Request, toolb::Response;
    Store store;
    toolb::Options options;
    options.loops = 2;
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080));
    engine.route("PUT", "/documents/{id}", [&](const Request &in, Response &out) { put(store, in, out); });
    engine.get("/documents/{id}", [&](const Request &in, Response &out) { get(store, in, out); });
    engine.route("DELETE", "/documents/{id}",
                 [&](const Request &in, Response &out) { remove(store, in, out); });
    engine.get("/documents", [&](const Request &, Response &out) { list(store, out); });
    return engine.serve();
}
