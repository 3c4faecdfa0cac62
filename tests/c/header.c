/* The header stands alone in C, however often it is included. */
#include <toolb.h>
#include <toolb.h>

_Static_assert(TOOLB_OK == 0, "success is 0");

int main(void)
{
    return toolb_abi_version() == TOOLB_ABI_VERSION ? 0 : 1;
}
