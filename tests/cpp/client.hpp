// A client for tests that knows nothing of HTTP: it sends bytes, and reads until the other side closes.
#ifndef CLIENT_HPP
#define CLIENT_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#define EXPECT(condition)                                                                     \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);      \
            std::exit(1);                                                                     \
        }                                                                                     \
    } while (0)

/// A connection to an address such as "http://127.0.0.1:8080".
class Client {
public:
    explicit Client(const std::string &address) : socket_(::socket(AF_INET, SOCK_STREAM, 0))
    {
        const std::size_t colon = address.rfind(':');
        EXPECT(colon != std::string::npos);
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        where.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1)));
        EXPECT(::connect(socket_, reinterpret_cast<sockaddr *>(&where), sizeof where) == 0);
    }

    ~Client() { ::close(socket_); }
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;

    void send(std::string_view bytes)
    {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            EXPECT(sent > 0);
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }

    /// Says that nothing more comes from here.
    void finish() { ::shutdown(socket_, SHUT_WR); }

    /// At most `most` bytes, or what came until the other side closed.
    std::string receive(std::size_t most = static_cast<std::size_t>(-1))
    {
        std::string all;
        char buffer[65536];
        while (all.size() < most) {
            const std::size_t room = std::min(sizeof buffer, most - all.size());
            const ssize_t got = ::recv(socket_, buffer, room, 0);
            if (got <= 0)
                break;
            all.append(buffer, static_cast<std::size_t>(got));
        }
        return all;
    }

private:
    int socket_;
};

/// The whole answer to a request without a body, on a connection of its own.
inline std::string ask(const std::string &address, const std::string &method, const std::string &path)
{
    Client client(address);
    client.send(method + " " + path + " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    return client.receive();
}

inline bool starts(const std::string &text, std::string_view with)
{
    return text.compare(0, with.size(), with) == 0;
}

inline bool ends(const std::string &text, std::string_view with)
{
    return text.size() >= with.size() &&
           text.compare(text.size() - with.size(), with.size(), with) == 0;
}

#endif
