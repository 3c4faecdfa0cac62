/* The header stands alone in C, however often it is included. */
#include <toolb.h>
#include <toolb.h>

/* What is sent may be of any kind: whoever has bytes or numbers casts nothing. */
void send_all(toolb_consumer *consumer, toolb_response *response, toolb_token *token);
void send_all(toolb_consumer *consumer, toolb_response *response, toolb_token *token)
{
    const unsigned char bytes[] = {0, 1, 2};
    const double numbers[] = {0.5, 1.5};
    (void)toolb_response_write(response, bytes, sizeof bytes);
    (void)toolb_exchange_write(consumer, 1, numbers, sizeof numbers);
    (void)toolb_exchange_answer(consumer, 1, bytes, sizeof bytes);
    (void)toolb_token_write(token, numbers, sizeof numbers);
    (void)toolb_token_answer(token, bytes, sizeof bytes);
    (void)toolb_stream_send(1, numbers, sizeof numbers);
}

_Static_assert(TOOLB_OK == 0, "success is 0");

int main(void)
{
    return toolb_abi_version() == TOOLB_ABI_VERSION ? 0 : 1;
}
