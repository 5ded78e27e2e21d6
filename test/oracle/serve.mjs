/**
 * The official dev server as a child process: `node --import tsx serve.mjs '<options of startServer>'`. Sends
 * `{ host }` to its parent when it answers, and ends when the parent is gone.
 */
import { startServer } from "@langchain/langgraph-api/server";

const { host } = await startServer(JSON.parse(process.argv[2]));
process.send({ host });
process.on("disconnect", () => process.exit(0));
