#include "base/cpu_quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace wl {
namespace {

constexpr int kPath = 1024;

// The first line of a small file; false when it cannot be read.
bool read_line(const char* path, char* text, int size) {
  FILE* file = fopen(path, "r");
  if (!file) return false;
  const bool read = fgets(text, size, file) != nullptr;
  fclose(file);
  return read;
}

double quota_in(const char* folder, bool v2) {
  char path[kPath + 32], text[64];
  if (v2) {
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!read_line(path, text, sizeof text)) return 0;
    double quota = 0, period = 0;  // "max 100000" leaves both 0
    return sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0 ? quota / period : 0;
  }
  snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
  if (!read_line(path, text, sizeof text)) return 0;
  const double quota = atof(text);  // -1: no limit
  snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
  if (!read_line(path, text, sizeof text)) return 0;
  const double period = atof(text);
  return quota > 0 && period > 0 ? quota / period : 0;
}

double least(double a, double b) {
  return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

// The least quota of `mount`/`group` and the folders above it up to `mount` (a container often sees only its own group, as the root).
double quota_upwards(const char* mount, const char* group, bool v2) {
  char folder[kPath];
  const int root = int(strlen(mount));
  if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= int(sizeof folder)) return 0;
  double quota = 0;
  for (;;) {
    quota = least(quota, quota_in(folder, v2));
    char* slash = strrchr(folder, '/');
    if (!slash || slash - folder < root) return quota;
    *slash = 0;
  }
}

bool names_cpu(const char* controllers) {  // a comma-separated list that holds "cpu"
  for (const char* p = controllers; p; p = strchr(p, ',')) {
    if (*p == ',') ++p;
    if (strncmp(p, "cpu", 3) == 0 && (p[3] == ',' || p[3] == 0)) return true;
  }
  return false;
}

}  // namespace

double cpu_quota(const char* self_cgroup, const char* mount) {
  FILE* file = fopen(self_cgroup, "r");
  if (!file) return 0;
  double quota = 0;
  char line[kPath], folder[kPath];
  while (fgets(line, sizeof line, file)) {  // "<id>:<controllers>:<group>"
    line[strcspn(line, "\n")] = 0;
    char* controllers = strchr(line, ':');
    char* group = controllers ? strchr(controllers + 1, ':') : nullptr;
    if (!group) continue;
    *group++ = 0;
    ++controllers;
    if (*controllers == 0) {
      quota = least(quota, quota_upwards(mount, group, true));
      snprintf(folder, sizeof folder, "%.512s/unified", mount);
      quota = least(quota, quota_upwards(folder, group, true));
    } else if (names_cpu(controllers)) {
      snprintf(folder, sizeof folder, "%.512s/cpu", mount);
      quota = least(quota, quota_upwards(folder, group, false));
      snprintf(folder, sizeof folder, "%.512s/%.256s", mount, controllers);
      quota = least(quota, quota_upwards(folder, group, false));
    }
  }
  fclose(file);
  return quota;
}

}  // namespace wl
