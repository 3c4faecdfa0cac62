// Answers that come later, timers, watched descriptors and the states of loops, by their C++ faces.
#include "client.hpp"

#include <toolb.hpp>

#include <fcntl.h>
#include <sys/eventfd.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>
#include <type_traits>

namespace {

using toolb::Request;
using toolb::Response;
using toolb::Step;
using std::chrono::milliseconds;

static_assert(!std::is_copy_constructible_v<toolb::Token>);
static_assert(std::is_nothrow_move_constructible_v<toolb::Token>);
static_assert(!std::is_copy_constructible_v<toolb::Timer>);
static_assert(std::is_nothrow_move_assignable_v<toolb::Timer>);
static_assert(!std::is_copy_constructible_v<toolb::Watch>);

// An engine that runs on a thread of its own.
class Running {
public:
    explicit Running(toolb::Engine made) : engine_(std::move(made))
    {
        engine_.listen("127.0.0.1", 0);
        EXPECT(engine_.start());
        address = engine_.address();
        thread_ = std::thread([this] { EXPECT(engine_.run()); });
    }

    ~Running()
    {
        engine_.stop();
        thread_.join();
    }

    std::string get(const std::string &path) const { return ask(address, "GET", path); }
    toolb_stats stats() const { return engine_.stats(); }

    std::string address;

private:
    toolb::Engine engine_;
    std::thread thread_;
};

void a_token_answers()
{
    toolb::Engine engine;
    engine.get("/thread", [](const Request &request, Response &response) {
        response.status(202).field("x-a", "b");
        std::thread([token = response.later(), path = std::string(request.path())]() mutable {
            EXPECT(token.field("x-c", "d"));
            EXPECT(token.answer(path + " by a thread"));
            EXPECT(!token);
            EXPECT(token.write("x").code() == TOOLB_NULL_ARGUMENT);
        }).detach();
    });
    engine.get("/now", [](const Request &, Response &response) {
        toolb::Token token = response.later();
        EXPECT(token);
        EXPECT(!response.later());
        EXPECT(token.wait().code() == TOOLB_BAD_STATE);
        EXPECT(token.write("in "));
        EXPECT(token.status(404).code() == TOOLB_BAD_STATE);
        EXPECT(token.write("parts"));
        EXPECT(token.end());
        return Step::Later;
    });
    engine.get("/dropped", [](const Request &, Response &response) { (void)response.later(); });
    engine.get("/thrown", [](const Request &, Response &response) {
        const toolb::Token token = response.later();
        throw std::runtime_error("on purpose");
    });
    engine.get("/moved", [](const Request &, Response &response) {
        std::thread([token = response.later()]() mutable { (void)token.answer("all the same"); }).detach();
        throw std::runtime_error("after the token was given away");
    });
    const Running running(std::move(engine));

    const std::string answer = running.get("/thread");
    EXPECT(starts(answer, "HTTP/1.1 202 ") && ends(answer, "/thread by a thread"));
    EXPECT(answer.find("x-a: b\r\n") != std::string::npos);
    EXPECT(answer.find("x-c: d\r\n") != std::string::npos);
    const std::string parts = running.get("/now");
    EXPECT(starts(parts, "HTTP/1.1 200 ") && parts.find("in ") != std::string::npos);
    EXPECT(starts(running.get("/dropped"), "HTTP/1.1 500 "));
    EXPECT(starts(running.get("/thrown"), "HTTP/1.1 500 "));
    EXPECT(ends(running.get("/moved"), "all the same"));
    EXPECT(running.stats().requests == 5);
}

void a_client_that_leaves_is_noticed()
{
    std::promise<toolb::Token> taken;
    std::promise<void> left;
    auto held = std::make_shared<int>(7);
    const std::weak_ptr<int> seen = held;
    toolb::Engine engine;
    engine.get("/", [&](const Request &, Response &response) {
        toolb::Token token = response.later();
        EXPECT(token.on_cancel([] { EXPECT(false); }));
        EXPECT(token.on_cancel([&, held] {
            EXPECT(*held == 7);
            left.set_value();
        }));
        taken.set_value(std::move(token));
    });
    const Running running(std::move(engine));
    toolb::Token token;
    {
        Client client(running.address);
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        token = taken.get_future().get();
    }
    left.get_future().wait();
    EXPECT(token.write("x").code() == TOOLB_GONE);
    EXPECT(token.on_cancel([held] {}).code() == TOOLB_GONE);
    EXPECT(token.answer("x").code() == TOOLB_GONE);
    // The handler itself is what still holds it, through nothing: its lambdas have been dropped.
    held.reset();
    ask(running.address, "GET", "/none"); // a turn of the loop after the call
    EXPECT(seen.expired());
}

void a_reader_that_is_slow_makes_a_writer_wait()
{
    constexpr std::size_t total = 8 << 20;
    const std::string part(64 << 10, 'x');
    std::atomic<int> refused{0};
    std::atomic<int> room{0};
    toolb::Engine engine;
    engine.get("/", [&](const Request &, Response &response) {
        std::thread([&, token = response.later()]() mutable {
            EXPECT(token.on_writable([&] { ++room; }));
            for (std::size_t sent = 0; sent < total;) {
                const toolb::Status status = token.write(part);
                if (status) {
                    sent += part.size();
                    continue;
                }
                EXPECT(status.code() == TOOLB_FULL);
                ++refused;
                EXPECT(token.wait());
            }
            EXPECT(token.end());
        }).detach();
    });
    const Running running(std::move(engine));
    Client client(running.address);
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    while (refused == 0)
        std::this_thread::yield();
    EXPECT(client.receive().size() > total);
    EXPECT(room > 0);
}

void timers_fire_and_are_cancelled()
{
    std::atomic<int> cancelled{0};
    toolb::Engine engine;
    engine.get("/after", [&](const Request &, Response &response) {
        const auto begun = std::chrono::steady_clock::now();
        EXPECT(toolb::after(milliseconds(20), [begun, token = response.later()]() mutable {
            EXPECT(std::chrono::steady_clock::now() - begun >= milliseconds(20));
            (void)token.answer("waited");
        }));
    });
    engine.get("/cancel", [&](const Request &, Response &response) {
        auto counted = std::shared_ptr<int>(new int, [&](int *number) {
            ++cancelled;
            delete number;
        });
        auto timer = toolb::Timer::start(milliseconds(0), [counted] { EXPECT(false); });
        EXPECT(timer);
        toolb::Timer moved(std::move(*timer));
        auto second = toolb::Timer::start(milliseconds(0), [counted] { EXPECT(false); });
        moved = std::move(*second);
        moved.cancel();
        moved.cancel();
        response.write("cancelled");
    });
    engine.get("/throw", [&](const Request &, Response &response) {
        EXPECT(toolb::after(milliseconds(0), [token = response.later()] {
            throw std::runtime_error("on purpose");
        }));
    });
    {
        const Running running(std::move(engine));
        EXPECT(ends(running.get("/after"), "waited"));
        EXPECT(ends(running.get("/cancel"), "cancelled"));
        EXPECT(starts(running.get("/throw"), "HTTP/1.1 500 "));
    }
    EXPECT(cancelled == 1);
    EXPECT(toolb::after(milliseconds(0), [] {}).code() == TOOLB_WRONG_LOOP);
    EXPECT(toolb::Timer::start(milliseconds(0), [] {}).status().code() == TOOLB_WRONG_LOOP);
}

void descriptors_are_watched()
{
    toolb::Engine engine;
    engine.get("/until", [](const Request &, Response &response) {
        const int event = eventfd(3, EFD_SEMAPHORE);
        auto token = std::make_shared<toolb::Token>(response.later());
        EXPECT(toolb::watch(event, TOOLB_WATCH_READ, [event, token, left = 3](std::uint32_t events) mutable {
            EXPECT(events == TOOLB_WATCH_READ);
            eventfd_t value = 0;
            EXPECT(eventfd_read(event, &value) == 0 && value == 1);
            if (--left > 0)
                return true;
            ::close(event);
            (void)token->answer("read");
            return false;
        }));
    });
    engine.get("/raii", [](const Request &, Response &response) {
        const int event = eventfd(1, 0);
        auto token = std::make_shared<toolb::Token>(response.later());
        auto watch = std::make_shared<toolb::Watch>();
        auto started = toolb::Watch::start(event, TOOLB_WATCH_READ, [watch, token](std::uint32_t) {
            (void)token->answer("once");
            watch->end();
        });
        ::close(event);
        EXPECT(started);
        *watch = std::move(*started);
    });
    engine.get("/bad", [](const Request &, Response &response) {
        const auto closed = toolb::Watch::start(-1, TOOLB_WATCH_READ, [](std::uint32_t) {});
        EXPECT(closed.status().code() == TOOLB_BAD_ARGUMENT);
        EXPECT(std::string(closed.status().text()).find("descriptor -1") != std::string::npos);
        const auto odd = toolb::watch(0, 77, [](std::uint32_t) { return true; });
        EXPECT(odd.code() == TOOLB_BAD_ARGUMENT);
        EXPECT(std::string(odd.text()).find("77 are no events") != std::string::npos);
        response.write("refused");
    });
    const Running running(std::move(engine));
    EXPECT(ends(running.get("/until"), "read"));
    EXPECT(ends(running.get("/raii"), "once"));
    EXPECT(ends(running.get("/bad"), "refused"));
    EXPECT(toolb::watch(0, TOOLB_WATCH_READ, [](std::uint32_t) { return true; }).code() ==
           TOOLB_WRONG_LOOP);
}

void what_a_lambda_holds_ends_with_it()
{
    using toolb::Timer;
    std::weak_ptr<int> seen;
    // A timer that is as far away as it gets, and what it keeps.
    const auto far = [&] {
        auto held = std::make_shared<int>();
        seen = held;
        auto timer = Timer::start(std::chrono::hours(1000), [held] { EXPECT(false); });
        EXPECT(timer);
        return std::make_shared<Timer>(std::move(*timer));
    };
    toolb::Engine engine;
    engine.get("/fired", [&](const Request &, Response &response) {
        EXPECT(toolb::after(milliseconds(0), [timer = far(), token = response.later()]() mutable {
            (void)token.answer("called");
        }));
    });
    engine.get("/cancelled", [&](const Request &, Response &) {
        auto timer = Timer::start(std::chrono::hours(1), [timer = far()] { EXPECT(false); });
        EXPECT(timer);
        timer->cancel();
    });
    engine.get("/until", [&](const Request &, Response &response) {
        const int event = eventfd(1, 0);
        EXPECT(toolb::watch(event, TOOLB_WATCH_READ,
                            [timer = far(), token = response.later()](std::uint32_t) mutable {
                                (void)token.answer("called");
                                return false;
                            }));
        ::close(event);
    });
    engine.get("/unwatched", [&](const Request &, Response &) {
        const int event = eventfd(1, 0);
        auto watch = toolb::Watch::start(event, TOOLB_WATCH_READ,
                                         [timer = far()](std::uint32_t) { EXPECT(false); });
        EXPECT(watch);
        watch->end();
        ::close(event);
    });
    engine.get("/refused", [&](const Request &, Response &) {
        const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        EXPECT(toolb::watch(file, TOOLB_WATCH_READ, [timer = far()](std::uint32_t) {
                   return true;
               }).code() == TOOLB_BAD_ARGUMENT);
        ::close(file);
    });
    std::promise<toolb::Token> cancel, writable;
    engine.get("/cancel", [&](const Request &, Response &response) {
        toolb::Token token = response.later();
        EXPECT(token.on_cancel([timer = far()] {}));
        cancel.set_value(std::move(token));
    });
    engine.get("/writable", [&](const Request &, Response &response) {
        toolb::Token token = response.later();
        EXPECT(token.on_writable([timer = far()] {}));
        writable.set_value(std::move(token));
    });
    const Running running(std::move(engine));
    for (const char *path : {"/fired", "/cancelled", "/until", "/unwatched", "/refused"}) {
        EXPECT(starts(running.get(path), "HTTP/1.1 200 "));
        running.get("/none"); // a turn of the loop after the call
        EXPECT(seen.expired());
    }
    for (auto &[path, taken] : {std::pair("/cancel", &cancel), std::pair("/writable", &writable)}) {
        toolb::Token token;
        {
            Client client(running.address);
            client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: t\r\n\r\n");
            token = taken->get_future().get();
        }
        while (token.status(200))
            std::this_thread::yield();
        running.get("/none");
        EXPECT(seen.expired());
    }
}

void loops_have_states()
{
    struct Counter {
        explicit Counter(std::atomic<int> &count) : alive(&count) { ++count; }
        Counter(Counter &&other) noexcept : alive(std::exchange(other.alive, nullptr)) {}
        ~Counter()
        {
            if (alive != nullptr)
                --*alive;
        }
        std::atomic<int> *alive;
        int requests = 0;
        std::thread::id thread = std::this_thread::get_id();
    };
    std::atomic<int> alive{0};
    toolb::Options options;
    options.loops = 2;
    toolb::Engine engine(options);
    engine.route(
        "GET", "/", [&] { return Counter(alive); },
        [](Counter &counter, const Request &, Response &response) {
            EXPECT(counter.thread == std::this_thread::get_id());
            response.write(std::to_string(++counter.requests));
        });
    engine.route(
        "GET", "/failed", []() -> int { throw std::runtime_error("on purpose"); },
        [](int &, const Request &, Response &) { EXPECT(false); });
    {
        const Running running(std::move(engine));
        Client client(running.address);
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n"
                    "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        EXPECT(ends(client.receive(), "\r\n\r\n2"));
        EXPECT(alive > 0);
        EXPECT(starts(running.get("/failed"), "HTTP/1.1 500 "));
    }
    EXPECT(alive == 0);
}

} // namespace

int main()
{
    a_token_answers();
    a_client_that_leaves_is_noticed();
    a_reader_that_is_slow_makes_a_writer_wait();
    timers_fire_and_are_cancelled();
    descriptors_are_watched();
    what_a_lambda_holds_ends_with_it();
    loops_have_states();
}
