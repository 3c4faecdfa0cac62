// What a handler sees: Request, Response and Step. Part of toolb.hpp.
#ifndef TOOLB_HTTP_HPP
#define TOOLB_HTTP_HPP

#include "status.hpp"
#include "token.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace toolb {
inline namespace TOOLB_MODE {

/// What becomes of the connection after a handler; returning nothing means Done.
enum class Step : int {
    /// The response is complete; the connection goes on as HTTP has it.
    Done = TOOLB_DONE,
    /// The response is complete; the connection closes after it.
    Close = TOOLB_CLOSE,
    /// The response comes from whoever has the token of Response::later; then it goes without saying.
    Later = TOOLB_LATER,
};

/// The name and the value of a field; both views end with the request.
struct Field {
    std::string_view name;
    std::string_view value;
};

/// The fields of a request in the order they came, as a range for a `for` loop.
class Fields {
public:
    class Iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Field;
        using difference_type = std::ptrdiff_t;
        using pointer = const Field *;
        using reference = Field;

        Iterator(const toolb_request *request, std::size_t index) noexcept
            : request_(request), index_(index)
        {
        }

        Field operator*() const noexcept
        {
            toolb_slice name{}, value{};
            (void)toolb_request_field_at(request_, index_, &name, &value);
            return {{name.data, name.len}, {value.data, value.len}};
        }
        Iterator &operator++() noexcept
        {
            ++index_;
            return *this;
        }
        Iterator operator++(int) noexcept { return {request_, index_++}; }
        bool operator==(const Iterator &other) const noexcept { return index_ == other.index_; }
        bool operator!=(const Iterator &other) const noexcept { return index_ != other.index_; }

    private:
        const toolb_request *request_;
        std::size_t index_;
    };

    explicit Fields(const toolb_request *request) noexcept : request_(request) {}

    Iterator begin() const noexcept { return {request_, 0}; }
    Iterator end() const noexcept { return {request_, size()}; }
    std::size_t size() const noexcept { return toolb_request_field_count(request_); }
    bool empty() const noexcept { return size() == 0; }

private:
    const toolb_request *request_;
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

    /// All fields: `for (auto [name, value] : request.fields())`. Over the bus their names are in
    /// lower case.
    Fields fields() const noexcept { return Fields(handle_); }

    /// The client's address, and its port if it is asked for; empty and 0 on a Unix socket.
    std::string_view peer(std::uint16_t *port = nullptr) const noexcept
    {
        return view(toolb_request_peer(handle_, port));
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

    /// Gives away the right to answer, with what was set and written so far; what is written here
    /// afterwards is lost. The second one is empty.
    Token later() noexcept
    {
        toolb_token *made = nullptr;
        is_later_ = toolb_response_later(handle_, &made) == TOOLB_OK || is_later_;
        return Token(made);
    }

    bool is_later() const noexcept { return is_later_; }

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
    bool is_later_ = false;
};

namespace detail {

/// Calls a handler that returns nothing or a Step; tells the library what became of it.
template <class Call>
int answer(const std::string &name, toolb_response *response, Call call) noexcept
{
    using Returned = std::invoke_result_t<Call &, Response &>;
    static_assert(std::is_void_v<Returned> || std::is_same_v<Returned, Step>,
                  "a handler returns nothing or a toolb::Step");
    Response lent(response);
    Step step = Step::Done;
    const bool went_well = guarded(name.c_str(), [&] {
        if constexpr (std::is_void_v<Returned>)
            call(lent);
        else
            step = call(lent);
    });
    if (lent.is_later())
        return TOOLB_LATER;
    if (!went_well)
        lent.fail();
    return static_cast<int>(step);
}

/// A handler of the application, with the function that toolb.h calls it by.
template <class Handler>
class Bound {
    static_assert(std::is_invocable_v<const Handler &, const Request &, Response &>,
                  "a handler is called as handler(const toolb::Request &, toolb::Response &); "
                  "it is const, since several loops call it at once");

public:
    Bound(Handler handler, std::string name) : handler_(std::move(handler)), name_(std::move(name)) {}

    static int call(void *bound, const toolb_request *request, toolb_response *response) noexcept
    {
        const Bound &self = *static_cast<const Bound *>(bound);
        const Request lent(request);
        return answer(self.name_, response, [&](Response &out) { return self.handler_(lent, out); });
    }

private:
    const Handler handler_;
    const std::string name_;
};

/// The same with a state for each loop.
template <class Make, class Handler>
class BoundState {
    static_assert(std::is_invocable_v<const Make &>,
                  "a state is made by make_state(), which is const, as several loops call it at once");
    using State = std::invoke_result_t<const Make &>;
    static_assert(std::is_invocable_v<const Handler &, State &, const Request &, Response &>,
                  "a handler with a state is called as "
                  "handler(State &, const toolb::Request &, toolb::Response &), and is const");

public:
    BoundState(Make make, Handler handler, std::string name)
        : make_(std::move(make)), handler_(std::move(handler)), name_(std::move(name))
    {
    }

    static int call(void *bound, const toolb_request *request, toolb_response *response) noexcept
    {
        const BoundState &self = *static_cast<const BoundState *>(bound);
        auto *state = static_cast<State *>(toolb_request_state(request));
        const Request lent(request);
        if (state == nullptr) {
            // make_state has failed on this loop, and the log says why.
            Response(response).fail();
            return TOOLB_DONE;
        }
        return answer(self.name_, response,
                      [&](Response &out) { return self.handler_(*state, lent, out); });
    }

    static void *make(void *bound, std::uint32_t) noexcept
    {
        const BoundState &self = *static_cast<const BoundState *>(bound);
        State *state = nullptr;
        (void)guarded("a make_state", [&] { state = new State(self.make_()); });
        return state;
    }

    static void drop(void *state) noexcept { delete static_cast<State *>(state); }

private:
    const Make make_;
    const Handler handler_;
    const std::string name_;
};

/// What an engine or a consumer keeps of the application, as long as it lives.
class Kept {
public:
    template <class Held, class... Arguments>
    Held *hold(Arguments &&...arguments)
    {
        auto held = std::make_shared<Held>(std::forward<Arguments>(arguments)...);
        kept_.push_back(held);
        return held.get();
    }

    /// The route of a handler.
    template <class Handler>
    toolb_route route(const char *method, const char *pattern, Handler handler)
    {
        toolb_route route{};
        route.struct_size = sizeof route;
        route.handler = &Bound<Handler>::call;
        route.user_data = hold<Bound<Handler>>(std::move(handler), name_of(method, pattern));
        return route;
    }

    /// The same with a state.
    template <class Make, class Handler>
    toolb_route route(const char *method, const char *pattern, Make make_state, Handler handler)
    {
        using Bound = BoundState<Make, Handler>;
        toolb_route route{};
        route.struct_size = sizeof route;
        route.handler = &Bound::call;
        route.user_data =
            hold<Bound>(std::move(make_state), std::move(handler), name_of(method, pattern));
        route.make_state = &Bound::make;
        route.drop_state = &Bound::drop;
        return route;
    }

private:
    /// What a line about an exception calls a handler.
    static std::string name_of(const char *method, const char *pattern)
    {
        std::string name = "the handler of ";
        // The library refuses what is null; here it must only not crash.
        if (method != nullptr && pattern != nullptr)
            name.append(method).append(" ").append(pattern);
        return name;
    }

    std::vector<std::shared_ptr<void>> kept_;
};

/// Keeps for good what the library goes on to use: an engine or consumer that cannot be freed where it
/// was let go of, and its callbacks. In a list, so that a search for leaks finds it in use.
inline void leave(void *handle, Kept kept) noexcept
{
    struct Left {
        Kept kept;
        void *handle;
        Left *next;
    };
    static std::atomic<Left *> first{nullptr};
    auto *left = new Left{std::move(kept), handle, first.load()};
    while (!first.compare_exchange_weak(left->next, left)) {
    }
}

} // namespace detail
} // namespace TOOLB_MODE
} // namespace toolb

#endif
