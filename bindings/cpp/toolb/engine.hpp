// The engine. Part of toolb.hpp.
#ifndef TOOLB_ENGINE_HPP
#define TOOLB_ENGINE_HPP

#include "consumer.hpp"
#include "http.hpp"
#include "signals.hpp"
#include "stream.hpp"

#include <memory>

namespace toolb {
inline namespace TOOLB_MODE {

/// Settings of an engine, as in toolb.h; those left at 0 have their default.
struct Options : toolb_options {
    Options() noexcept : toolb_options{} { struct_size = sizeof(toolb_options); }
};

/// A server: addresses to listen on, and handlers for routes.
///
/// Configured by one thread, then run. The first mistake is kept, and start and run report it, so
/// that nothing has to be checked before. The destructor ends what still runs; on a loop, where
/// nothing can wait for that, it calls stop(), and the engine and its handlers stay in memory.
class Engine {
public:
    Engine() : Engine(Options()) {}
    explicit Engine(const Options &options)
    {
        toolb_engine *made = nullptr;
        const toolb_status status = toolb_engine_new(&options, &made);
        handle_.reset(made);
        // Without an engine there is none to ask for the text.
        if (status == TOOLB_BAD_ARGUMENT)
            failure_ = Status(status, detail::fetch(&toolb_last_error));
        (void)keep(status);
    }

    Engine(Engine &&) noexcept = default;
    Engine &operator=(Engine &&other) noexcept
    {
        if (this == &other)
            return *this;
        // The engine that was here ends before what its loops use goes.
        let_go();
        handle_ = std::move(other.handle_);
        kept_ = std::move(other.kept_);
        failure_ = std::move(other.failure_);
        started_ = other.started_;
        return *this;
    }

    ~Engine() { let_go(); }

    /// Listens on a host name or address and a port; 0 picks a free one, see address().
    Engine &listen(const char *host, std::uint16_t port)
    {
        return keep(toolb_engine_listen(handle(), host, port));
    }

    /// Listens on a Unix socket; `mode` is that of its file, such as 0660, and 0 is as the umask says.
    Engine &listen_unix(const char *path, std::uint32_t mode = 0)
    {
        return keep(toolb_engine_listen_unix(handle(), path, mode));
    }

    /// Answers requests with this method ("GET", or "*" for all) and a path that fits the pattern
    /// ("/", "/user/{id}", "/files/{*rest}") by `handler`, which is called as
    ///
    ///     void handler(const toolb::Request &, toolb::Response &)       // or returning toolb::Step
    ///
    /// on the loop thread of the request's connection: at the same time on several loops, and as long
    /// as it runs the other connections of its loop wait. It lives as long as the engine.
    template <class Handler>
    Engine &route(const char *method, const char *pattern, Handler handler)
    {
        const toolb_route route = kept_.route(method, pattern, std::move(handler));
        return keep(toolb_engine_add_route(handle(), method, pattern, &route));
    }

    /// The same with a state for each loop, which needs no lock: made by `make_state()` on the loop's
    /// thread before its first request, and destroyed there when the loop ends. The handler is called
    /// as
    ///
    ///     void handler(State &, const toolb::Request &, toolb::Response &)
    template <class Make, class Handler>
    Engine &route(const char *method, const char *pattern, Make make_state, Handler handler)
    {
        const toolb_route route =
            kept_.route(method, pattern, std::move(make_state), std::move(handler));
        return keep(toolb_engine_add_route(handle(), method, pattern, &route));
    }

    /// Serves raw connections to an address by what `make()` makes for each loop: an object derived
    /// from toolb::Service. Without a host it lives on connections that it makes.
    template <class Make>
    Engine &service(const char *host, std::uint16_t port, Make make,
                    const ServiceOptions &options = ServiceOptions())
    {
        auto *bound = kept_.hold<detail::BoundService<Make>>(std::move(make));
        const toolb_service description = bound->description(options);
        return keep(toolb_engine_service(handle(), host, port, &description, bound));
    }

    /// The same on a Unix socket; `mode` is that of its file, and 0 is as the umask says.
    template <class Make>
    Engine &service_unix(const char *path, std::uint32_t mode, Make make,
                         const ServiceOptions &options = ServiceOptions())
    {
        auto *bound = kept_.hold<detail::BoundService<Make>>(std::move(make));
        const toolb_service description = bound->description(options);
        return keep(toolb_engine_service_unix(handle(), path, mode, &description, bound));
    }

    /// Sends what no route matches to consumers, in place of answering 404. `bus` is the path at which
    /// they attach: null is the usual place, and with "" there is only the one that consumer() makes.
    Engine &pool(const char *bus = nullptr) { return keep(toolb_engine_pool(handle(), bus)); }

    /// Passes raw connections at this address on to consumers that take streams; needs pool(), too.
    Engine &stream_pool(const char *host, std::uint16_t port)
    {
        return keep(toolb_engine_stream_pool(handle(), host, port));
    }

    /// The same at a Unix socket.
    Engine &stream_pool_unix(const char *path, std::uint32_t mode = 0)
    {
        return keep(toolb_engine_stream_pool_unix(handle(), path, mode));
    }

    /// route("GET", ...), which answers HEAD, too.
    template <class Handler>
    Engine &get(const char *pattern, Handler handler)
    {
        return route("GET", pattern, std::move(handler));
    }

    /// route("POST", ...).
    template <class Handler>
    Engine &post(const char *pattern, Handler handler)
    {
        return route("POST", pattern, std::move(handler));
    }

    /// Binds the addresses and starts the loops; returns when connections are accepted.
    Status start()
    {
        if (failure_.ok()) {
            (void)keep(toolb_engine_start(handle()));
            started_ = failure_.ok();
        }
        return failure_;
    }

    /// Starts unless started, and serves until stop() is called; then lets what was accepted end.
    Status run()
    {
        if (failure_.ok())
            (void)keep(toolb_engine_run(handle()));
        return failure_;
    }

    /// All that the main function of a small program does: starts unless started, prints a line
    /// "serving on ..." for each address, and runs until SIGINT or SIGTERM, unless the program handles
    /// those itself. A failure is a line on standard error. Returns what main should: 0, or 3 after a
    /// failure. Several engines serve on a thread each: the first signal stops them all.
    int serve()
    {
        Status status = started_ ? failure_ : start();
        if (status) {
            // First, so that whoever has read the line may send a signal.
            const detail::StopOnSignals signals(handle());
            for (std::size_t index = 0; !address(index).empty(); ++index)
                std::printf("serving on %s\n", address(index).c_str());
            std::fflush(stdout);
            status = run();
        }
        if (status)
            return 0;
        std::fprintf(stderr, "toolb: %s\n", status.text());
        return 3;
    }

    /// Makes a consumer of this running engine in the same process, for another thread than the one in
    /// run(); one at a time.
    Result<Consumer> consumer(const ConsumerOptions &options = ConsumerOptions())
    {
        toolb_consumer *made = nullptr;
        const toolb_status status = toolb_engine_consumer(handle(), &options, &made);
        if (status != TOOLB_OK)
            return detail::explained(status);
        return Consumer(made);
    }

    /// Makes run() return. Any thread, any number of times, and from signal handlers.
    void stop() noexcept { (void)toolb_engine_stop(handle()); }

    /// The address number `index` of a running engine, such as "http://127.0.0.1:8080"; else empty.
    std::string address(std::size_t index = 0) const
    {
        return detail::fetch([&](char *buffer, std::size_t capacity, std::size_t *needed) {
            return toolb_engine_address(handle(), index, buffer, capacity, needed);
        });
    }

    /// The path at which consumers of a running engine attach; empty if there is none.
    std::string bus() const
    {
        return detail::fetch([this](char *buffer, std::size_t capacity, std::size_t *needed) {
            return toolb_engine_bus(handle(), buffer, capacity, needed);
        });
    }

    /// What the engine has counted. Any thread.
    toolb_stats stats() const noexcept
    {
        toolb_stats stats{};
        stats.struct_size = sizeof stats;
        (void)toolb_engine_stats(handle(), &stats);
        return stats;
    }

    /// The first mistake, or that there was none.
    const Status &status() const noexcept { return failure_; }

    /// For the functions of toolb.h that have no method here. It stays this object's.
    toolb_engine *handle() const noexcept { return handle_.get(); }

private:
    struct Free {
        void operator()(toolb_engine *engine) const noexcept { (void)toolb_engine_free(engine); }
    };

    /// Frees the engine, or has it end by itself where the library does not free it.
    void let_go() noexcept
    {
        toolb_engine *const engine = handle_.release();
        if (toolb_engine_free(engine) == TOOLB_OK)
            return;
        (void)toolb_engine_stop(engine);
        detail::leave(engine, std::move(kept_));
    }

    /// Remembers the first mistake.
    Engine &keep(toolb_status status)
    {
        if (status != TOOLB_OK && failure_.ok())
            failure_ = Status(status, error());
        return *this;
    }

    std::string error() const
    {
        return detail::fetch([this](char *buffer, std::size_t capacity, std::size_t *needed) {
            return toolb_engine_error(handle(), buffer, capacity, needed);
        });
    }

    // In this order: the engine is freed before what its loops use.
    detail::Kept kept_;
    std::unique_ptr<toolb_engine, Free> handle_;
    Status failure_;
    bool started_ = false;
};

} // namespace TOOLB_MODE
} // namespace toolb

#endif
