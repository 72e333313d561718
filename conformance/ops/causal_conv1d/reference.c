/* SPDX-License-Identifier: Apache-2.0 */
#include "variant/variant.h"
mbr_status mbr_impl_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
mbr_status mbr_impl_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
size_t mbr_impl_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    (void)p;
    return 0;
}
mbr_status mbr_impl_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    (void)p;
    return MBR_E_UNSUPPORTED;
}
