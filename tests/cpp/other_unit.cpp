// A second translation unit with the same header: nothing in it may be defined twice.
#include <toolb.hpp>
#include <toolb.hpp>

std::string other_unit()
{
    toolb::Engine engine;
    engine.get("/", [](const toolb::Request &, toolb::Response &response) { response.write("x"); });
    return engine.status() ? "the other unit" : engine.status().text();
}
