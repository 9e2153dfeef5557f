# Abbreviations; what they do is in .ci/run and the README.

# Everything that CI runs.
check:
    bash .ci/run

# Format all files, those that macros declare included.
fmt:
    git ls-files '*.rs' | xargs rustfmt --edition 2024

# The tests against reference data of other implementations.
golden:
    cargo test --release golden

# Train PPO on CartPole, live.
run:
    cargo run --release
