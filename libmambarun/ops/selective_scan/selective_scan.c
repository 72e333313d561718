/* SPDX-License-Identifier: Apache-2.0 */
#include "selective_scan.h"
mbr_status mbr_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
mbr_status mbr_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
size_t mbr_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    (void)p;
    return 0;
}
