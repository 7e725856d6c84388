/* A selector: of the emptiest nodes, the one that is least busy.
 *
 * It has no clock, no random numbers and no IO. The same request, candidates, configuration and
 * `request->seed` must give the same answer: that is what makes a decision replayable.
 * `maitred module build` writes bindings/selector_module.h from wit/policy.wit; the comments there
 * say what else there is. Whatever is handed over belongs to this side and is freed here; whatever
 * is returned is freed by the bindings, so it must come from malloc. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "selector_module.h"

enum { PROCESSES, CPU, COLUMNS };
enum { SHOWN = 5 };

typedef exports_maitred_policy_selector_candidates_t candidates_t;
typedef exports_maitred_policy_selector_manifest_t manifest_t;
typedef exports_maitred_policy_selector_request_t request_t;
typedef exports_maitred_policy_selector_answer_t answer_t;

static void texts(selector_module_list_string_t *list) {
    static const char *const names[COLUMNS] = {[PROCESSES] = "processes", [CPU] = "cpu"};
    list->len = COLUMNS;
    list->ptr = malloc(COLUMNS * sizeof *list->ptr);
    for (size_t i = 0; i < COLUMNS; i++) selector_module_string_dup(&list->ptr[i], names[i]);
}

void exports_maitred_policy_selector_describe(manifest_t *manifest) {
    selector_module_string_dup(&manifest->name, "least-busy");
    selector_module_string_dup(&manifest->version, "0.1.0");
    /* The columns of `candidates->features`, in this order. */
    texts(&manifest->features);
    /* What `maitred process explain` shows beside each node of `scores`. */
    texts(&manifest->terms);
    /* Of the whole fleet the 16 lowest. Each value costs a little time to hand over, so it is the
     * host that looks at all nodes. */
    manifest->ask.tag = EXPORTS_MAITRED_POLICY_SELECTOR_ASK_LOWEST;
    selector_module_string_dup(&manifest->ask.val.lowest.feature, "processes");
    manifest->ask.val.lowest.count = 16;
}

/* A configuration is tried before a version decides with it. This policy has none. */
bool exports_maitred_policy_selector_validate(selector_module_string_t *config,
                                              selector_module_string_t *error) {
    bool ok = config->len == 2 && memcmp(config->ptr, "{}", 2) == 0;
    if (!ok) selector_module_string_dup(error, "this policy has no configuration");
    selector_module_string_free(config);
    return ok;
}

/* A value that the host does not know is NaN; such a node comes last. */
static bool before(const float *a, const float *b) {
    for (size_t i = 0; i < COLUMNS; i++) {
        float left = isnan(a[i]) ? INFINITY : a[i], right = isnan(b[i]) ? INFINITY : b[i];
        if (left != right) return left < right;
    }
    return false;
}

/* 5 ms of processor time. False, with `error` set, makes the host decide by the type's fallback. */
bool exports_maitred_policy_selector_select(request_t *request, candidates_t *candidates,
                                            answer_t *answer, selector_module_string_t *error) {
    (void)error;
    maitred_policy_answers_scores_t *scores = &answer->scores;
    scores->slots.ptr = malloc(SHOWN * sizeof *scores->slots.ptr);
    scores->values.ptr = malloc(SHOWN * COLUMNS * sizeof *scores->values.ptr);
    size_t count = 0;
    /* The best five so far, in order. A node comes after those that are equal to it: the host has
     * put equal nodes in an order of `request->seed`. */
    for (size_t row = 0; row < candidates->slots.len; row++) {
        /* Row by row, as many values as features. */
        const float *values = &candidates->features.ptr[row * COLUMNS];
        size_t at = count;
        while (at > 0 && before(values, &scores->values.ptr[(at - 1) * COLUMNS])) at--;
        if (at == SHOWN) continue;
        if (count < SHOWN) count++;
        size_t after = count - 1 - at;
        memmove(&scores->slots.ptr[at + 1], &scores->slots.ptr[at], after * sizeof(uint32_t));
        memmove(&scores->values.ptr[(at + 1) * COLUMNS], &scores->values.ptr[at * COLUMNS],
                after * COLUMNS * sizeof(float));
        scores->slots.ptr[at] = candidates->slots.ptr[row];
        memcpy(&scores->values.ptr[at * COLUMNS], values, COLUMNS * sizeof(float));
    }
    scores->slots.len = count;
    scores->values.len = count * COLUMNS;
    answer->verdict.tag = MAITRED_POLICY_ANSWERS_VERDICT_CHOOSE;
    answer->verdict.val.choose = scores->slots.ptr[0];
    exports_maitred_policy_selector_request_free(request);
    exports_maitred_policy_selector_candidates_free(candidates);
    return true;
}
