# Certificates of a node with --tls, good and bad. Read by scripts/broker.
# shellcheck shell=bash

# $1: name of the pair; $2: name of the authority's pair; $3: subject; $4: extensions; $5 and $6: valid from and until
certificate() {
    local to=$folder/tls/$1 by=$folder/tls/$2
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$to.key" 2>/dev/null ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$to.key" 2>/dev/null
    openssl req -new -key "$to.key" -subj "$3" -out "$to.csr"
    printf '%s\n' "$4" >"$to.ext"
    local self=()
    if [[ $1 == "$2" ]]; then self=(-selfsign); fi
    # `openssl ca` alone can sign what has expired already, and it wants a ledger.
    : >"$folder/tls/index"
    printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nrand_serial=yes\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' \
        "$folder/tls/index" "$folder/tls" >"$folder/tls/ca.cnf"
    openssl ca -batch -notext -config "$folder/tls/ca.cnf" -extfile "$to.ext" -startdate "$5" -enddate "$6" \
        -keyfile "$by.key" ${self[@]+"${self[@]}"} $([[ $1 == "$2" ]] || echo "-cert $by.pem") \
        -in "$to.csr" -out "$to.pem" 2>"$folder/tls/openssl.log" || die "$(cat "$folder/tls/openssl.log")"
    rm -f "$to.csr" "$to.ext"
}

# Made anew for every node; none of them is worth anything elsewhere.
make_certificates() {
    command -v openssl >/dev/null || die "--tls needs openssl"
    mkdir -p "$folder/tls"
    local from=20200101000000Z until=20491231000000Z
    local authority=$'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash'
    local ids=$'\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid'
    local server=$'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName='
    local client=$'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth'
    local here=DNS:localhost,IP:127.0.0.1
    certificate ca ca "/CN=longshore test authority" "$authority" $from $until
    certificate unknown-ca unknown-ca "/CN=an authority that nobody knows" "$authority" $from $until
    certificate server ca /CN=localhost "$server$here$ids" $from $until
    certificate expired ca /CN=localhost "$server$here$ids" $from 20210101000000Z
    certificate wrong-host ca /CN=elsewhere.invalid "${server}DNS:elsewhere.invalid$ids" $from $until
    certificate unknown unknown-ca /CN=localhost "$server$here$ids" $from $until
    certificate client ca /CN=guest "$client$ids" $from $until
    certificate nobody ca /CN=nobody "$client$ids" $from $until
    certificate unknown-client unknown-ca /CN=guest "$client$ids" $from $until
    rm -f "$folder"/tls/index* "$folder"/tls/ca.cnf "$folder"/tls/openssl.log "$folder"/tls/[0-9A-F]*.pem
    # The container's user reads them too; the folder above is closed.
    chmod 644 "$folder"/tls/*
}
