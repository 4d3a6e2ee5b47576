#define EINSTRIDE_LEVEL portable
#include "level.inc"
