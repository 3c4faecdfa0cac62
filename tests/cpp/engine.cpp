// The engine by its C++ face: mistakes, routes, exceptions, moving.
#include "client.hpp"

#include <toolb.hpp>

#include <cstdio>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>

std::string other_unit();
bool passes_without_exceptions(void (*call)());

namespace {

static_assert(!std::is_copy_constructible_v<toolb::Engine>);
static_assert(std::is_nothrow_move_constructible_v<toolb::Engine>);
static_assert(std::is_nothrow_move_assignable_v<toolb::Engine>);
static_assert(!std::is_copy_constructible_v<toolb::Request>);
static_assert(!std::is_copy_constructible_v<toolb::Response>);

void nothing(const toolb::Request &, toolb::Response &) {}

void the_first_mistake_is_kept()
{
    toolb::Options options;
    options.loops = 100000;
    toolb::Engine impossible(options);
    EXPECT(impossible.status().code() == TOOLB_BAD_ARGUMENT);
    EXPECT(std::string(impossible.status().text()).find("io-threads") != std::string::npos);
    EXPECT(impossible.listen("127.0.0.1", 0).get("/", nothing).start().code() == TOOLB_BAD_ARGUMENT);
    EXPECT(impossible.address().empty());
    impossible.stop();

    toolb::Engine engine;
    EXPECT(engine.status().ok());
    engine.listen("127.0.0.1", 0);
    engine.get("/user/:id", nothing).get(nullptr, nothing);
    const toolb::Status status = engine.run();
    EXPECT(!status);
    EXPECT(status.code() == TOOLB_BAD_ARGUMENT);
    EXPECT(std::string(status.text()).find("{id} instead of :id") != std::string::npos);

    EXPECT(toolb::Status(TOOLB_NOT_FOUND).text() == std::string("there is nothing by that name or index"));
    EXPECT(toolb::Engine().run().code() == TOOLB_BAD_STATE);
}

void results_hold_one_or_the_other()
{
    toolb::Result<std::string> good(std::string("a"));
    EXPECT(good.ok() && *good == "a" && good->size() == 1 && good.status());
    toolb::Result<std::string> bad(toolb::Status(TOOLB_NOT_FOUND, "no such thing"));
    EXPECT(!bad && bad.status().code() == TOOLB_NOT_FOUND);
    EXPECT(std::string(bad.status().text()) == "no such thing");
    EXPECT(*std::move(good) == "a");
}

// What the process writes to standard error while this lives.
class Said {
public:
    Said() : file_(std::tmpfile()), before_(::dup(2))
    {
        EXPECT(file_ != nullptr && before_ >= 0 && ::dup2(fileno(file_), 2) == 2);
    }

    ~Said()
    {
        ::dup2(before_, 2);
        ::close(before_);
        std::fclose(file_);
    }

    std::string text() const
    {
        std::string all(4096, '\0');
        const ssize_t size = ::pread(fileno(file_), all.data(), all.size(), 0);
        all.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
        return all;
    }

private:
    std::FILE *file_;
    int before_;
};

/** A log that is no terminal begins each line with the time and a blank. */
std::string without_times(const std::string &log)
{
    std::istringstream lines(log);
    std::string rest;
    for (std::string line; std::getline(lines, line);) {
        const std::string::size_type blank = line.find(' ');
        EXPECT(blank == std::string("2026-11-21T14:05:01.204+01:00").size());
        rest += line.substr(blank + 1) + '\n';
    }
    return rest;
}

void an_exception_is_one_line_in_the_log()
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", 0);
    engine.get("/user/{id}", [](const toolb::Request &request, toolb::Response &) {
        throw std::runtime_error("no user " + std::string(request.param("id")));
    });
    engine.route("*", "/odd", [](const toolb::Request &, toolb::Response &) -> toolb::Step { throw 7; });
    EXPECT(engine.start());
    std::thread running([&] { EXPECT(engine.run()); });
    std::string text;
    {
        const Said said;
        EXPECT(starts(ask(engine.address(), "GET", "/user/a%0Ab"), "HTTP/1.1 500 "));
        EXPECT(starts(ask(engine.address(), "GET", "/odd"), "HTTP/1.1 500 "));
        text = said.text();
    }
    text = without_times(text);
    EXPECT(text == "toolb error: an exception left the handler of GET /user/{id}: no user a\\nb\n"
                   "toolb error: an exception left the handler of * /odd: it is no std::exception\n");
    engine.stop();
    running.join();
}

void handlers_answer()
{
    toolb::Options options;
    options.loops = 2;
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", 0);
    std::string greeting = "Hello";
    engine.get("/hello/{name}", [greeting](const toolb::Request &request, toolb::Response &response) {
        EXPECT(request.param("none").empty());
        response.write(greeting).write(", ").write(request.param("name"));
    });
    engine.route("*", "/all", [](const toolb::Request &request, toolb::Response &response) {
        EXPECT(request.field("HOST").value_or("") == "t");
        EXPECT(!request.field("x-none"));
        response.status(201).field("x-method", std::string(request.method()).c_str());
        response.write(request.path()).write("?").write(request.query()).write(request.body());
    });
    engine.get("/fields", [](const toolb::Request &request, toolb::Response &response) {
        const toolb::Fields fields = request.fields();
        EXPECT(fields.size() == 2 && !fields.empty());
        EXPECT(std::distance(fields.begin(), fields.end()) == 2);
        for (const auto [name, value] : fields)
            response.write(name).write("=").write(value).write(";");
        std::uint16_t port = 0;
        response.write(request.peer(&port));
        EXPECT(port != 0);
    });
    engine.get("/close", [](const toolb::Request &, toolb::Response &) { return toolb::Step::Close; });
    engine.get("/clear", [](const toolb::Request &, toolb::Response &response) {
        response.status(404).field("x-a", "b").write("never seen").clear().write("anew");
    });
    engine.get("/bad/field", [](const toolb::Request &, toolb::Response &response) {
        response.write("never seen").field("x-\xff", "a");
    });
    engine.get("/bad/throw", [](const toolb::Request &, toolb::Response &response) {
        response.status(200).write("never seen");
        throw std::runtime_error("on purpose");
    });
    engine.get("/bad/odd", [](const toolb::Request &, toolb::Response &) -> toolb::Step { throw 7; });
    engine.get("/other", [other = other_unit()](const toolb::Request &, toolb::Response &response) {
        response.write(other);
    });

    EXPECT(engine.start());
    const std::string address = engine.address();
    EXPECT(!address.empty());
    EXPECT(engine.address(1).empty());
    std::thread running([&] { EXPECT(engine.run()); });

    EXPECT(ends(ask(address, "GET", "/hello/a%20b"), "\r\n\r\nHello, a b"));
    EXPECT(ends(ask(address, "GET", "/fields"), "\r\n\r\nHost=t;Connection=close;127.0.0.1"));
    const std::string all = ask(address, "DELETE", "/all?q=1");
    EXPECT(starts(all, "HTTP/1.1 201 "));
    EXPECT(all.find("x-method: DELETE\r\n") != std::string::npos);
    EXPECT(ends(all, "\r\n\r\n/all?q=1"));
    {
        Client open(address);
        open.send("GET /close HTTP/1.1\r\nHost: t\r\n\r\n");
        EXPECT(starts(open.receive(), "HTTP/1.1 200 "));
    }
    const std::string anew = ask(address, "GET", "/clear");
    EXPECT(starts(anew, "HTTP/1.1 200 ") && ends(anew, "\r\n\r\nanew"));
    EXPECT(anew.find("x-a") == std::string::npos);
    for (const char *path : {"/bad/field", "/bad/throw", "/bad/odd"}) {
        const std::string answer = ask(address, "GET", path);
        EXPECT(starts(answer, "HTTP/1.1 500 "));
        EXPECT(answer.find("never seen") == std::string::npos);
    }
    EXPECT(ends(ask(address, "GET", "/other"), "the other unit"));

    engine.stop();
    running.join();
    EXPECT(engine.run().code() == TOOLB_BAD_STATE);
}

void an_engine_moves()
{
    toolb::Engine first;
    first.listen("127.0.0.1", 0).get("/", [text = std::string("moved")](const toolb::Request &,
                                                                        toolb::Response &response) {
        response.write(text);
    });
    EXPECT(first.start());
    toolb::Engine second(std::move(first));
    EXPECT(ends(ask(second.address(), "GET", "/"), "moved"));
    EXPECT(first.start().code() == TOOLB_NULL_ARGUMENT); // NOLINT: what is left can be asked
    // The engine that is replaced runs; it ends first.
    toolb::Engine third;
    third.listen("127.0.0.1", 0).get("/", nothing);
    EXPECT(third.start());
    second = std::move(third);
    EXPECT(starts(ask(second.address(), "GET", "/"), "HTTP/1.1 200 "));
}

void throws() { throw std::runtime_error("on purpose"); }

void units_with_and_without_exceptions_meet()
{
    EXPECT(passes_without_exceptions([] {}));
    EXPECT(!toolb::detail::guarded("a function with exceptions", &throws));
}

} // namespace

int main()
{
    units_with_and_without_exceptions_meet();
    the_first_mistake_is_kept();
    results_hold_one_or_the_other();
    an_exception_is_one_line_in_the_log();
    handlers_answer();
    an_engine_moves();
}
