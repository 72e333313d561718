/* SPDX-License-Identifier: Apache-2.0 */
#include "status.h"
#include <stdio.h>
const char *mbr_last_error(void) {
    return "";
}
