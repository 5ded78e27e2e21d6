import type { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import { CallbackManager } from "@langchain/core/callbacks/manager";

/*
 * LangChain makes and copies a callback manager for every runnable, many for each node of a graph, and its `copy` makes
 * the metadata anew for every key: 24 keys nearly double a short run's time (`bench/parts.ts`). These are its own
 * managers, but for how their metadata is copied.
 */

/** What begins a run of something, and can have children. */
interface RunManager {
  getChild(tag?: string): CallbackManager;
}

/** A callback manager whose copies and children copy their metadata in one go. */
export class RunCallbacks extends CallbackManager {
  /** `handlers` hear of everything in the run. */
  static of(handlers: readonly BaseCallbackHandler[]): RunCallbacks {
    const callbacks = new RunCallbacks();
    callbacks.setHandlers([...handlers]);
    return callbacks;
  }

  /** `manager`, which nobody else has, as one of these. */
  static #from(manager: CallbackManager): RunCallbacks {
    return Object.assign(new RunCallbacks(), manager);
  }

  override copy(...args: Parameters<CallbackManager["copy"]>): CallbackManager {
    const { metadata, inheritableMetadata } = this;
    this.metadata = {};
    this.inheritableMetadata = {};
    try {
      const copy = RunCallbacks.#from(super.copy(...args));
      copy.metadata = { ...metadata };
      copy.inheritableMetadata = {};
      for (const key of Object.keys(metadata))
        if (Object.hasOwn(inheritableMetadata, key)) copy.inheritableMetadata[key] = metadata[key];
      return copy;
    } finally {
      this.metadata = metadata;
      this.inheritableMetadata = inheritableMetadata;
    }
  }

  override async handleChainStart(...args: Parameters<CallbackManager["handleChainStart"]>) {
    return RunCallbacks.#withChildren(await super.handleChainStart(...args));
  }

  override async handleToolStart(...args: Parameters<CallbackManager["handleToolStart"]>) {
    return RunCallbacks.#withChildren(await super.handleToolStart(...args));
  }

  override async handleRetrieverStart(
    ...args: Parameters<CallbackManager["handleRetrieverStart"]>
  ) {
    return RunCallbacks.#withChildren(await super.handleRetrieverStart(...args));
  }

  static #withChildren<Manager extends RunManager>(manager: Manager): Manager {
    const getChild = manager.getChild.bind(manager);
    manager.getChild = (tag) => RunCallbacks.#from(getChild(tag));
    return manager;
  }
}
