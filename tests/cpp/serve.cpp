// Engine::serve(): what SIGINT and SIGTERM do to one engine and to several. Each case is a process.
#include "client.hpp"

#include <toolb.hpp>

#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <thread>

int serve_without_exceptions(std::uint16_t port);

namespace {

// Lets each engine say where it serves, as serve() does on standard output, and reads it.
class Told {
public:
    Told()
    {
        int ends[2];
        EXPECT(::pipe(ends) == 0 && ::dup2(ends[1], 1) == 1 && ::close(ends[1]) == 0);
        from_ = ::fdopen(ends[0], "r");
        EXPECT(from_ != nullptr);
    }
    ~Told() { std::fclose(from_); }
    Told(const Told &) = delete;

    /// The next address; who has it serves, and takes signals.
    std::string address()
    {
        char line[128], address[128];
        EXPECT(std::fgets(line, sizeof line, from_) != nullptr);
        EXPECT(std::sscanf(line, "serving on %127s", address) == 1);
        return address;
    }

private:
    std::FILE *from_;
};

// An engine that serves in a thread, and maybe has a request that does not end.
class Serving {
public:
    explicit Serving(Told &told) : engine_(std::make_unique<toolb::Engine>())
    {
        engine_->listen("127.0.0.1", 0);
        engine_->get("/slow", [this](const toolb::Request &, toolb::Response &response) {
            token_ = response.later();
            is_busy_.store(true);
        });
        thread_ = std::thread([this] { EXPECT(engine_->serve() == 0); });
        address_ = told.address();
    }
    ~Serving() { join(); }

    void begin()
    {
        client_ = std::make_unique<Client>(address_);
        client_->send("GET /slow HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        while (!is_busy_.load())
            std::this_thread::yield();
    }

    void finish()
    {
        EXPECT(token_.answer("done"));
        EXPECT(ends(client_->receive(), "done"));
    }

    void stop() { engine_->stop(); }

    void join()
    {
        if (thread_.joinable())
            thread_.join();
        engine_.reset();
    }

private:
    std::unique_ptr<toolb::Engine> engine_;
    std::unique_ptr<Client> client_;
    toolb::Token token_;
    std::atomic<bool> is_busy_{false};
    std::string address_;
    std::thread thread_;
};

void (*disposition(int number))(int)
{
    struct sigaction now {};
    EXPECT(sigaction(number, nullptr, &now) == 0);
    return now.sa_handler;
}

void send(int number) { EXPECT(::kill(::getpid(), number) == 0); }

void a_signal_stops_all_that_serve()
{
    Told told;
    Serving one(told), other(told);
    EXPECT(disposition(SIGINT) != SIG_DFL && disposition(SIGTERM) != SIG_DFL);
    send(SIGTERM);
    one.join();
    other.join();
    EXPECT(disposition(SIGINT) == SIG_DFL && disposition(SIGTERM) == SIG_DFL);
}

void an_engine_that_has_gone_is_let_alone()
{
    for (const bool is_last : {true, false}) {
        Told told;
        Serving one(told), other(told);
        Serving &gone = is_last ? other : one;
        gone.stop();
        gone.join();
        EXPECT(disposition(SIGTERM) != SIG_DFL);
        send(SIGTERM);
        (is_last ? one : other).join();
        EXPECT(disposition(SIGINT) == SIG_DFL && disposition(SIGTERM) == SIG_DFL);
    }
}

// Whichever the second one is.
template <int first, int second>
void the_second_signal_ends_the_program()
{
    Told told;
    Serving one(told), other(told);
    one.begin();
    EXPECT(::raise(first) == 0);
    const bool has_survived = ::raise(second) == 0;
    EXPECT(!has_survived);
}

void who_comes_after_the_signal_ends_at_once()
{
    Told told;
    Serving one(told);
    one.begin();
    EXPECT(::raise(SIGINT) == 0);
    Serving late(told);
    late.join();
    one.finish();
    one.join();
    // All have gone: the next one begins anew.
    Serving next(told);
    EXPECT(disposition(SIGINT) != SIG_DFL);
    next.begin();
    next.finish();
    send(SIGINT);
    next.join();
}

void what_the_program_has_set_stays()
{
    Told told;
    std::signal(SIGINT, SIG_IGN);
    static std::atomic<int> handled{0};
    struct sigaction own {};
    own.sa_handler = [](int) { ++handled; };
    EXPECT(sigaction(SIGTERM, &own, nullptr) == 0);
    {
        Serving one(told), other(told);
        send(SIGINT);
        EXPECT(::raise(SIGTERM) == 0);
        EXPECT(handled.load() == 1);
        one.stop();
        one.join();
        other.stop();
        other.join();
    }
    EXPECT(disposition(SIGINT) == SIG_IGN && disposition(SIGTERM) == own.sa_handler);
}

void units_without_exceptions_serve_beside_others()
{
    Told told;
    Serving one(told);
    std::thread other([] { EXPECT(serve_without_exceptions(0) == 0); });
    (void)told.address();
    send(SIGINT);
    other.join();
    one.join();
    EXPECT(disposition(SIGINT) == SIG_DFL);
}

// A copy of the program has none of its engines: a signal ends it, as it would without toolB.
void a_signal_ends_a_forked_copy()
{
    Told told;
    Serving one(told);
    const pid_t copy = ::fork();
    EXPECT(copy >= 0);
    if (copy == 0) {
        (void)::raise(SIGTERM);
        ::_exit(1);
    }
    int status = 0;
    EXPECT(::waitpid(copy, &status, 0) == copy);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    one.begin();
    one.finish();
    send(SIGTERM);
    one.join();
}

// The signal comes as the engines end: it may find some, or none and end the program as it would have.
void a_signal_comes_at_any_time()
{
    Told told;
    Serving one(told), other(told);
    std::thread sends([] { send(SIGTERM); });
    std::thread stops([&] { one.stop(); });
    other.stop();
    other.join();
    stops.join();
    one.join();
    sends.join();
}

// How the case ends: a status of wait.
int ends_by(void (*run)())
{
    const pid_t child = ::fork();
    EXPECT(child >= 0);
    if (child == 0) {
        ::alarm(300); // a watchdog
        run();
        std::exit(0);
    }
    int status = 0;
    EXPECT(::waitpid(child, &status, 0) == child);
    return status;
}

bool went_well(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
bool was_ended(int status, int number) { return WIFSIGNALED(status) && WTERMSIG(status) == number; }

} // namespace

int main()
{
    // As what starts this may have them ignored.
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    EXPECT(went_well(ends_by(a_signal_stops_all_that_serve)));
    EXPECT(went_well(ends_by(an_engine_that_has_gone_is_let_alone)));
    EXPECT(was_ended(ends_by(the_second_signal_ends_the_program<SIGINT, SIGTERM>), SIGTERM));
    EXPECT(was_ended(ends_by(the_second_signal_ends_the_program<SIGTERM, SIGTERM>), SIGTERM));
    EXPECT(went_well(ends_by(who_comes_after_the_signal_ends_at_once)));
    EXPECT(went_well(ends_by(what_the_program_has_set_stays)));
    EXPECT(went_well(ends_by(units_without_exceptions_serve_beside_others)));
    EXPECT(went_well(ends_by(a_signal_ends_a_forked_copy)));
    for (int round = 0; round < 20; ++round) {
        const int status = ends_by(a_signal_comes_at_any_time);
        EXPECT(went_well(status) || was_ended(status, SIGTERM));
    }
}
