// One engine, one port, two languages: a route in C++ on the loop, and everything else by a pool of
// consumers that attach at a path, such as Python workers.
//
//     ./mixed PORT BUS
//     toolb work app:app --app-dir examples/cpp/mixed --bus BUS --workers 2
//
//     curl localhost:8080/native/7        C++
//     curl localhost:8080/hello/Anna      Python
#include <cstdio>
#include <cstdlib>

#include <toolb.hpp>

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s PORT BUS\n", argv[0]);
        return 2;
    }
    toolb::Engine engine;
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(std::atoi(argv[1])));
    engine.get("/native/{id}", [](const toolb::Request &request, toolb::Response &response) {
        response.field("content-type", "application/json");
        response.write(R"({"by": "C++", "id": )").write(request.param("id")).write("}\n");
    });
    engine.pool(argv[2]);
    return engine.serve();
}
