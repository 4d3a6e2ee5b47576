#define EINSTRIDE_LEVEL neon
#include "level.inc"
