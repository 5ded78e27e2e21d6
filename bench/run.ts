/** `npm run bench -- [scale] [options]`: the servers side by side, or what many processes and many rows do. */
const [, , name] = process.argv;
if (name === "scale") {
  process.argv.splice(2, 1);
  await import("./scale/main.ts");
} else {
  await import("./main.ts");
}
