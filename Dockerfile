FROM python:3.13-slim AS build

# The environment has no pip of its own, for nothing is installed into it later.
RUN python -m venv --without-pip /opt/vectr0
WORKDIR /src
# The dependencies are a layer of their own: a change of the service alone doesn't install them again.
COPY requirements.txt .
RUN pip --python /opt/vectr0 install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip --python /opt/vectr0 install --no-cache-dir --no-deps .


FROM python:3.13-slim

COPY --from=build /opt/vectr0 /opt/vectr0
ENV PATH=/opt/vectr0/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PORT=8000
# A number, so that Kubernetes can see that it isn't root. It owns nothing, and one worker writes nothing: the root file
# system may be read-only. Several workers share their metrics in a folder of /tmp.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# It asks where PORT or VECTR0_LISTEN say that the service listens (of the option --listen it knows nothing).
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-m", "service.health"]
CMD ["vectr0"]
