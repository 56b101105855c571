/*
 * Linked into the static binary when Debian's toolchain builds it for musl (see
 * `images`). Alpine's toolchain needs none of this.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>

struct dl_find_object {
    unsigned long long flags;
    void *start, *end;
    void *map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    unsigned long address;
    struct dl_find_object *out;
    int found;
};

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    struct search *search = data;
    void *frames = NULL;
    int hit = 0;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        unsigned long start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD && search->address >= start && search->address < start + header->p_memsz) {
            hit = 1;
            search->out->start = (void *)start;
            search->out->end = (void *)(start + header->p_memsz);
        }
        if (header->p_type == PT_GNU_EH_FRAME)
            frames = (void *)start;
    }
    if (!hit || !frames)
        return 0;
    search->out->flags = 0;
    search->out->map = NULL;
    search->out->eh_frame = frames;
    search->found = 1;
    return 1;
}

/* gcc's unwinder gets the unwind tables of an address from glibc by this function. */
int _dl_find_object(void *address, struct dl_find_object *out) {
    struct search search = {(unsigned long)address, out, 0};
    dl_iterate_phdr(visit, &search);
    return search.found ? 0 : -1;
}

/* mimalloc uses this; Debian's source builds compiler_builtins without it. */
int __popcountdi2(unsigned long long bits) {
    int count = 0;
    for (; bits; bits &= bits - 1)
        count++;
    return count;
}
