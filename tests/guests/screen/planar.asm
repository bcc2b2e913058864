; Mode 12h: all write modes, latches, a split screen, panning.
        bits 16
        org 0x7C00
%macro gc 2
        mov ax, (%2) << 8 | (%1)
        mov dx, 0x3CE
        out dx, ax
%endmacro
%macro crtc 2
        mov ax, (%2) << 8 | (%1)
        mov dx, 0x3D4
        out dx, ax
%endmacro
start:  xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov ax, 0x0012
        int 0x10
        mov ax, 0xA000
        mov es, ax
        mov ds, ax
        gc 5, 2                         ; write mode 2: bars of all colours
        gc 8, 0xFF
        xor bx, bx                      ; row
bars:   imul di, bx, 80
        xor cx, cx
bar:    mov ax, cx
        mov dl, 5
        div dl
        stosb
        inc cx
        cmp cx, 80
        jb bar
        inc bx
        cmp bx, 60
        jb bars
        gc 5, 0                         ; set/reset with a bit mask: stripes
        gc 0, 0x0E
        gc 1, 0x0F
        gc 8, 0x3C
        mov di, 80 * 70
        mov cx, 80 * 20
stripe: mov al, [di]
        mov [di], al
        inc di
        loop stripe
        gc 1, 0
        gc 8, 0xFF
        gc 5, 3                         ; write mode 3: rotated masks
        gc 3, 0x02
        gc 0, 0x09
        mov di, 80 * 100
        mov cx, 80 * 10
masked: mov al, [di]
        mov ax, cx
        mov [di], al
        inc di
        loop masked
        gc 5, 1                         ; write mode 1: what the latches hold
        gc 3, 0
        mov si, 0
        mov di, 80 * 120
        mov cx, 80 * 60
        rep movsb
        gc 5, 0                         ; exclusive or
        gc 3, 0x18
        gc 8, 0xFF
        mov di, 80 * 130
        mov cx, 80 * 8
xored:  mov al, [di]
        mov al, 0x0F
        mov [di], al
        inc di
        loop xored
        gc 3, 0
        mov cx, 100                     ; pixels by the BIOS
dot:    mov ax, 0x0C0F
        mov bh, 0
        mov dx, 200
        int 0x10
        inc cx
        cmp cx, 500
        jb dot
        crtc 0x0C, 0x00                 ; begins ten rows further down
        crtc 0x0D, 80 * 2
        crtc 0x18, 0x8F                 ; split at row 400
        crtc 0x07, 0x3E & ~0x10
        mov dx, 0x3D4
        mov al, 0x09
        out dx, al
        inc dx
        in al, dx
        and al, ~0x40
        out dx, al
        mov al, 0x07
        dec dx
        out dx, al
        inc dx
        in al, dx
        or al, 0x10
        out dx, al
        mov dx, 0x3DA                   ; three pixels to the left, the split stays
        in al, dx
        mov dx, 0x3C0
        mov al, 0x30
        out dx, al
        mov al, 0x21
        out dx, al
        mov al, 0x33
        out dx, al
        mov al, 3
        out dx, al
stop:   hlt
        jmp stop
        times 510-($-$$) db 0
        dw 0xAA55
