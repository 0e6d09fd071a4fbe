# PostgreSQL of Debian, where the official image cannot be pulled: only for docker/try_stack.py.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG TRIAL=
LABEL keras-sweeps.trial=${TRIAL}
ENV LANG=C.UTF-8
# hadolint ignore=DL3008
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
    && ln -s /usr/lib/postgresql/*/bin /opt/postgresql \
    && install --directory --owner 999 --group 999 --mode 700 /var/lib/postgresql/data
ENV PATH=/opt/postgresql:$PATH
COPY docker/trial/start-postgres.sh /start-postgres.sh
VOLUME /var/lib/postgresql/data
USER 999:999
ENTRYPOINT ["/start-postgres.sh"]
