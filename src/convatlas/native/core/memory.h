// Memory for maps and weights: in large pages where the system has them, as a network reads far more of it than
// the processor has page entries for small ones.
#pragma once

#include <cstdlib>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

template <class T>
struct LargePages {
    using value_type = T;

    LargePages() = default;
    template <class U>
    LargePages(const LargePages<U>&) {}

    T* allocate(size_t count) {
        constexpr size_t PAGE = 2 << 20, LINE = 64;
        size_t bytes = count * sizeof(T), unit = bytes >= PAGE ? PAGE : LINE;
        bytes = (bytes + unit - 1) / unit * unit;
        void* place = std::aligned_alloc(unit, bytes);
        if (!place) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (unit == PAGE) madvise(place, bytes, MADV_HUGEPAGE);  // Where it is refused, small pages do.
#endif
        return static_cast<T*>(place);
    }

    void deallocate(T* place, size_t) { std::free(place); }

    template <class U>
    bool operator==(const LargePages<U>&) const { return true; }
    template <class U>
    bool operator!=(const LargePages<U>&) const { return false; }
};

using Floats = std::vector<float, LargePages<float>>;

// Room for so many floats, at the beginning of a cache line, in memory that grows where it must and is kept.
static inline float* room(Floats& memory, size_t floats) {
    if (memory.size() < floats) memory.resize(floats);
    return memory.data();
}
