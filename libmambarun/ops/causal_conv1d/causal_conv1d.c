/* SPDX-License-Identifier: Apache-2.0 */
#include "causal_conv1d.h"
mbr_status mbr_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
mbr_status mbr_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
size_t mbr_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    (void)p;
    return 0;
}
mbr_status mbr_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
