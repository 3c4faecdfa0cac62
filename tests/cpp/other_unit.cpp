// A second translation unit with the same header: nothing in it may be defined twice.
#include <toolb.hpp>
#include <toolb.hpp>

std::string other_unit()
{
    toolb::Engine engine;
    engine.get("/", [](const toolb::Request &, toolb::Response &response) { response.write("x"); });
    return engine.status() ? "the other unit" : engine.status().text();
}

toolb::Status other_consumer()
{
    auto consumer = toolb::Consumer::attach("/none");
    if (!consumer)
        return consumer.status();
    return consumer->run_events([](const toolb::Event &event) { (void)event.exchange().answer("x"); });
}
