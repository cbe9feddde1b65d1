# Rarefind in a container; docker-compose.yml adds PostgreSQL.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home rarefind

WORKDIR /srv/rarefind
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app ./app
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
COPY migrations ./migrations
COPY templates ./templates
COPY static ./static

RUN mkdir /data && chown rarefind /data
USER rarefind
ENV RAREFIND_HOME=/data RAREFIND_HOST=0.0.0.0
EXPOSE 8321
VOLUME /data
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD curl --fail --silent http://127.0.0.1:8321/api/v1/health || exit 1
CMD ["rarefind", "serve"]
