# Rarefind in a container; docker-compose.yml adds a worker and PostgreSQL.
# For an NVIDIA GPU: docker build --build-arg VARIANT=gpu .
FROM debian:trixie-slim

ARG VARIANT=cpu
# The index of PyTorch's builds for the CPU, which pytorch.org names under "Get started": a tenth of the
# size. Empty: PyTorch from where all else comes, with CUDA in it.
ARG CPU_TORCH_INDEX=

# Debian mends what is found in these within a release: versions are those of the day of the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 rarefind \
    && mkdir /data /weights \
    && chown rarefind:rarefind /data /weights \
    && python3 -m venv /opt/rarefind
ENV PATH=/opt/rarefind/bin:$PATH PYTHONUNBUFFERED=1

WORKDIR /srv/rarefind
COPY constraints.txt pyproject.toml ./
# All that Rarefind needs, before its code: then a change of code fetches nothing. The versions are those of
# constraints.txt, also for PyTorch's build for the CPU, which the second step finds to be there.
# hadolint ignore=DL3013
RUN if [ "$VARIANT" = cpu ] && [ -n "$CPU_TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$CPU_TORCH_INDEX" --constraint constraints.txt torch torchvision; \
    fi \
    && python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['s3'], sep='\n')" \
        > /tmp/needed.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/needed.txt \
    && if [ "$VARIANT" = gpu ]; then \
        pip uninstall --yes faiss-cpu \
        && pip install --no-cache-dir --constraint constraints.txt "faiss-gpu-cu12>=1.13,<2"; \
    fi \
    && rm /tmp/needed.txt
COPY README.md LICENSE ./
COPY app ./app
RUN pip install --no-cache-dir --no-deps --editable .
COPY migrations ./migrations
COPY templates ./templates
COPY static ./static

USER 10001
# Weights that are fetched, and those that are brought, outlive the container.
ENV RAREFIND_HOME=/data \
    RAREFIND_HOST=0.0.0.0 \
    RAREFIND_PORT=8321 \
    RAREFIND_WEIGHTS=/weights \
    HF_HOME=/weights/.hub \
    RAREFIND_LOG_FORMAT=json \
    RAREFIND_LOG_LEVEL=info
EXPOSE 8321
VOLUME ["/data", "/weights"]
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['RAREFIND_PORT']}/api/v1/health\", timeout=8)"]
CMD ["rarefind", "serve"]
