#pragma once

namespace wl {

// Processors that the cgroups of this process grant: quota / period, the least on the way from its group to the root, v1 and v2;
// 0 when there is no limit. `self_cgroup` is /proc/self/cgroup and `mount` /sys/fs/cgroup but in tests.
double cpu_quota(const char* self_cgroup, const char* mount);

}  // namespace wl
