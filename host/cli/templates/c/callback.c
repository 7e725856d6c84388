/* A callback: starts the process on the node that was chosen, and waits a little when it is busy.
 *
 * It has no clock, no random numbers and no IO but `node` and `records`. It may be called again for
 * the same incarnation after a crash of the host; `start` gives the first answer then.
 * `maitred module build` writes bindings/callback_module.h from wit/policy.wit; the comments there
 * say what else there is. Whatever is handed over belongs to this side and is freed here; whatever
 * is returned is freed by the bindings, so it must come from malloc. */

#include <stdlib.h>
#include <string.h>

#include "callback_module.h"

/* How often a busy node is asked. */
enum { TRIES = 3 };

typedef exports_maitred_policy_callback_request_t request_t;
typedef exports_maitred_policy_callback_placement_t placement_t;
typedef exports_maitred_policy_callback_started_t started_t;
typedef exports_maitred_policy_callback_failure_t failure_t;
typedef exports_maitred_policy_callback_ended_t ended_t;
typedef exports_maitred_policy_callback_advice_t advice_t;

void exports_maitred_policy_callback_describe(exports_maitred_policy_callback_manifest_t *manifest) {
    callback_module_string_dup(&manifest->name, "{{name}}");
    callback_module_string_dup(&manifest->version, "0.1.0");
    /* Hooks that are not named here are not called: also ..._EXIT and ..._COMPENSATE. */
    manifest->hooks.len = 1;
    manifest->hooks.ptr = malloc(sizeof *manifest->hooks.ptr);
    manifest->hooks.ptr[0] = EXPORTS_MAITRED_POLICY_CALLBACK_HOOK_NODE_LOST;
}

/* A configuration is tried before a version decides with it. This policy has none. */
bool exports_maitred_policy_callback_validate(callback_module_string_t *config,
                                              callback_module_string_t *error) {
    bool ok = config->len == 2 && memcmp(config->ptr, "{}", 2) == 0;
    if (!ok) callback_module_string_dup(error, "this policy has no configuration");
    callback_module_string_free(config);
    return ok;
}

/* 50 ms of processor time; waiting for the node does not count. */
bool exports_maitred_policy_callback_spawn(request_t *request, placement_t *placement,
                                           started_t *started, failure_t *failure) {
    bool running = false;
    for (uint32_t attempt = 1;; attempt++) {
        maitred_policy_node_failure_t why;
        /* The node has ten seconds, or what is left of the create's deadline. */
        running = maitred_policy_node_start(&request->args, 10000, started, &why);
        if (running) break;
        if (why.tag != MAITRED_POLICY_NODE_FAILURE_BUSY || attempt == TRIES) {
            /* Another node may do; ..._GIVE_UP would end the create. The reason is passed on. */
            failure->tag = EXPORTS_MAITRED_POLICY_CALLBACK_FAILURE_ELSEWHERE;
            failure->val.elsewhere = why.val.busy;
            break;
        }
        maitred_policy_node_failure_free(&why);
        maitred_policy_node_pause(50 * attempt);
    }
    exports_maitred_policy_callback_request_free(request);
    exports_maitred_policy_callback_placement_free(placement);
    return running;
}

/* Undoes what `spawn` did besides `start`: nothing here. */
void exports_maitred_policy_callback_compensate(request_t *request, placement_t *placement,
                                                callback_module_string_t *reason) {
    exports_maitred_policy_callback_request_free(request);
    exports_maitred_policy_callback_placement_free(placement);
    callback_module_string_free(reason);
}

/* Only advice: at once the first time, later each time after that. */
void exports_maitred_policy_callback_on_node_lost(ended_t *ended, advice_t *advice) {
    if (ended->times <= 1) {
        advice->tag = EXPORTS_MAITRED_POLICY_CALLBACK_ADVICE_USUAL;
    } else {
        uint32_t wait = 500u << (ended->times < 10 ? ended->times : 10);
        advice->tag = EXPORTS_MAITRED_POLICY_CALLBACK_ADVICE_BACK_OFF;
        advice->val.back_off = wait < 600000 ? wait : 600000;
    }
    exports_maitred_policy_callback_ended_free(ended);
}

void exports_maitred_policy_callback_on_exit(ended_t *ended, advice_t *advice) {
    advice->tag = EXPORTS_MAITRED_POLICY_CALLBACK_ADVICE_USUAL;
    exports_maitred_policy_callback_ended_free(ended);
}
