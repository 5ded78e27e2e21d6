import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // A cold PGlite and processes that start, on a machine of two cores that others use too: what is right may take its
    // time, and only what hangs is to fail by these.
    hookTimeout: 180_000,
    testTimeout: 120_000,
    expect: { poll: { timeout: 60_000 } },
    // A third of the time is spent waiting, for processes to start and leases to end.
    maxWorkers: 3,
    projects: [
      {
        extends: true,
        test: { name: "modules", include: ["src/**/*.test.ts"] },
      },
      {
        extends: true,
        test: {
          name: "suites",
          include: ["test/**/*.test.ts"],
          exclude: ["test/oracle/**", "**/node_modules/**"],
          // Databases: only where there are suites to run, as it takes seconds.
          globalSetup: ["test/support/global-setup.ts"],
        },
      },
    ],
  },
});
