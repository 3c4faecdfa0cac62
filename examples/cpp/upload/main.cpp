// Uploads of any size and in any number at once, in a consumer: each is taken in pieces as it comes,
// so memory stays small, and a slow client holds up nobody. Answers with size and checksum.
//
//     ./upload [PORT]                  an engine of its own, in this process
//     TOOLB_BUS=PATH ./upload          a consumer of an engine that runs already
//
//     curl -T FILE localhost:8080/
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include <toolb.hpp>

namespace {

// What is known of an upload so far.
struct Upload {
    std::uint64_t bytes = 0;
    std::uint64_t sum = 0xcbf29ce484222325; // FNV-1a

    void add(std::string_view data)
    {
        for (const char byte : data)
            sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
        bytes += data.size();
    }
};

class Uploads {
public:
    void operator()(const toolb::Event &event)
    {
        using Kind = toolb::Event::Kind;
        const toolb::Exchange exchange = event.exchange();
        switch (event.kind()) {
        case Kind::Request:
        case Kind::Body: {
            Upload &upload = uploads_[exchange.id()];
            upload.add(event.data());
            if (event.is_end())
                answer(exchange, upload);
            break;
        }
        case Kind::BodyAborted:
        case Kind::Cancelled:
            uploads_.erase(exchange.id());
            (void)exchange.abort();
            break;
        default:
            break;
        }
    }

private:
    void answer(toolb::Exchange exchange, const Upload &upload)
    {
        char json[96];
        std::snprintf(json, sizeof json, "{\"bytes\": %" PRIu64 ", \"fnv1a\": \"%016" PRIx64 "\"}\n",
                      upload.bytes, upload.sum);
        uploads_.erase(exchange.id());
        // The client may have gone meanwhile; then the answer is lost, and that is all.
        (void)exchange.field("content-type", "application/json");
        (void)exchange.answer(json);
    }

    std::map<std::uint64_t, Upload> uploads_;
};

} // namespace

int main(int argc, char **argv)
{
    if (std::getenv("TOOLB_BUS") != nullptr) {
        auto consumer = toolb::Consumer::attach();
        const toolb::Status status = consumer ? consumer->run_events(Uploads()) : consumer.status();
        if (status)
            return 0;
        std::fprintf(stderr, "%s\n", status.text());
        return 3;
    }

    // A consumer in this process: another thread answers what the loops hand over.
    toolb::Options options;
    options.limit_request_body = std::uint64_t{1} << 40;
    options.timeout_response_ms = TOOLB_OFF; // the answer begins when all has come, however long that takes
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080));
    engine.pool("");
    if (!engine.start())
        return engine.serve(); // which says why
    std::thread consuming([&engine] {
        auto consumer = engine.consumer();
        const toolb::Status status = consumer ? consumer->run_events(Uploads()) : consumer.status();
        if (!status)
            std::fprintf(stderr, "%s\n", status.text());
    });
    const int code = engine.serve();
    consuming.join();
    return code;
}
