# The exporter in a container: slim, not as root, the native reader built in, the lake as a volume.
#
#   docker build -t ksql-lake .
#   docker run --rm -v lake:/lake -e KSQLDB_URL=http://ksqldb:8088 ksql-lake feeds discover --add
#   docker run --rm -v lake:/lake -e KSQLDB_URL=http://ksqldb:8088 ksql-lake export --all

FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py README.md data_lake_config.py ./
COPY ksql_lake ksql_lake
RUN python -m venv /opt/ksql-lake && /opt/ksql-lake/bin/pip install --no-cache-dir ".[s3,glue,kafka]"

FROM python:3.12-slim
RUN useradd --uid 1000 --create-home lake && mkdir /lake && chown lake:lake /lake
COPY --from=build /opt/ksql-lake /opt/ksql-lake
ENV PATH=/opt/ksql-lake/bin:$PATH DATA_LAKE_DIR=/lake PYTHONUNBUFFERED=1
USER lake
WORKDIR /lake
VOLUME /lake
HEALTHCHECK --interval=5m --timeout=60s CMD ["ksql-lake", "config", "--check"]
ENTRYPOINT ["ksql-lake"]
CMD ["--help"]
