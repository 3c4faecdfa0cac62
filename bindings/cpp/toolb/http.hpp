// What a handler sees: Request, Response and Step. Part of toolb.hpp.
#ifndef TOOLB_HTTP_HPP
#define TOOLB_HTTP_HPP

#include "status.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace toolb {

/// What becomes of the connection after a handler; returning nothing means Done.
enum class Step : int {
    /// The response is complete; the connection goes on as HTTP has it.
    Done = TOOLB_DONE,
    /// The response is complete; the connection closes after it.
    Close = TOOLB_CLOSE,
};

/// A request, lent to a handler. All views taken from it end with the handler's call.
class Request {
public:
    explicit Request(const toolb_request *handle) noexcept : handle_(handle) {}
    Request(const Request &) = delete;
    Request &operator=(const Request &) = delete;

    /// The method, as sent, such as "GET".
    std::string_view method() const noexcept { return view(toolb_request_method(handle_)); }

    /// The path, percent-decoded, without the query.
    std::string_view path() const noexcept { return view(toolb_request_path(handle_)); }

    /// The query, as sent, without its question mark.
    std::string_view query() const noexcept { return view(toolb_request_query(handle_)); }

    /// The whole body.
    std::string_view body() const noexcept { return view(toolb_request_body(handle_)); }

    /// What the route's parameter stands for: "7", for "id" of "/user/{id}" and the path "/user/7".
    /// Empty if the route has no such parameter.
    std::string_view param(const char *name) const noexcept
    {
        toolb_slice value{};
        return toolb_request_param(handle_, name, &value) == TOOLB_OK ? view(value)
                                                                      : std::string_view();
    }

    /// The value of the first field called `name`, in any case.
    std::optional<std::string_view> field(const char *name) const noexcept
    {
        toolb_slice value{};
        if (toolb_request_field(handle_, name, &value) != TOOLB_OK)
            return std::nullopt;
        return view(value);
    }

    const toolb_request *handle() const noexcept { return handle_; }

private:
    static std::string_view view(toolb_slice slice) noexcept { return {slice.data, slice.len}; }

    const toolb_request *handle_;
};

/// The response that a handler writes, lent to it for its call. The engine adds Content-Length,
/// Date and Connection. What HTTP does not allow makes the answer a 500 in place of this one.
class Response {
public:
    explicit Response(toolb_response *handle) noexcept : handle_(handle) {}
    Response(const Response &) = delete;
    Response &operator=(const Response &) = delete;

    /// Sets the status code; 200 when not called.
    Response &status(std::uint16_t code) noexcept
    {
        return checked(toolb_response_status(handle_, code));
    }

    /// Adds a field.
    Response &field(const char *name, const char *value) noexcept
    {
        return checked(toolb_response_field(handle_, name, value));
    }

    /// Appends to the body.
    Response &write(std::string_view bytes) noexcept
    {
        return checked(toolb_response_write(handle_, bytes.data(), bytes.size()));
    }

    /// Takes back all that was set and written.
    Response &clear() noexcept
    {
        (void)toolb_response_clear(handle_);
        return *this;
    }

    /// Makes the answer a plain 500, whatever was written.
    Response &fail() noexcept
    {
        (void)toolb_response_clear(handle_);
        (void)toolb_response_status(handle_, 500);
        (void)toolb_response_field(handle_, "content-type", "text/plain; charset=utf-8");
        (void)toolb_response_write(handle_, "Internal Server Error\n", 22);
        return *this;
    }

    toolb_response *handle() const noexcept { return handle_; }

private:
    /// What the library does not take is as bad as what HTTP does not allow: the engine answers 500
    /// for a status that there is not, and logs it.
    Response &checked(toolb_status status) noexcept
    {
        if (status != TOOLB_OK)
            (void)toolb_response_status(handle_, 0);
        return *this;
    }

    toolb_response *handle_;
};

namespace detail {

/// A handler of the application, with the function that toolb.h calls it by.
template <class Handler>
class Bound {
    static_assert(std::is_invocable_v<const Handler &, const Request &, Response &>,
                  "a handler is called as handler(const toolb::Request &, toolb::Response &); "
                  "it is const, since several loops call it at once");
    using Returned = std::invoke_result_t<const Handler &, const Request &, Response &>;
    static_assert(std::is_void_v<Returned> || std::is_same_v<Returned, Step>,
                  "a handler returns nothing or a toolb::Step");

public:
    Bound(Handler handler, std::string name) : handler_(std::move(handler)), name_(std::move(name)) {}

    static int call(void *bound, const toolb_request *request, toolb_response *response) noexcept
    {
        const Bound &self = *static_cast<const Bound *>(bound);
        const Request lent(request);
        Response answer(response);
        Step step = Step::Done;
        const bool went_well = guarded(self.name_.c_str(), [&] {
            if constexpr (std::is_void_v<Returned>)
                self.handler_(lent, answer);
            else
                step = self.handler_(lent, answer);
        });
        if (!went_well)
            answer.fail();
        return static_cast<int>(step);
    }

private:
    const Handler handler_;
    const std::string name_;
};

} // namespace detail
} // namespace toolb

#endif
